/*@ size_quotient: */
static ptrdiff_t size_quotient(ptrdiff_t a, ptrdiff_t b) {
  const ptrdiff_t q = a / b;
  return q * b != a && (a < 0) != (b < 0) ? q - 1 : q;
}

/*@ size_rest: size_quotient */
static ptrdiff_t size_rest(ptrdiff_t a, ptrdiff_t b) { return a - b * size_quotient(a, b); }

/*@ size_max: */
static ptrdiff_t size_max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/*@ size_min: */
static ptrdiff_t size_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/*@ maximum_f32: */
static inline float maximum_f32(float a, float b) { return a > b || a != a ? a : b; }

/*@ maximum_f64: */
static inline double maximum_f64(double a, double b) { return a > b || a != a ? a : b; }

/*@ minimum_f32: */
static inline float minimum_f32(float a, float b) { return a < b || a != a ? a : b; }

/*@ minimum_f64: */
static inline double minimum_f64(double a, double b) { return a < b || a != a ? a : b; }

/*@ floor_divide_f64: */
/* (x - remainder) / y, rounded: as Python's //. */
static double floor_divide_f64(double x, double y) {
  double rest, quotient, whole;
  if (y == 0.0) { return x / y; }
  rest = fmod(x, y);
  quotient = (x - rest) / y;
  if (rest != 0.0 && (y < 0.0) != (rest < 0.0)) { quotient -= 1.0; }
  if (quotient == 0.0) { return copysign(0.0, x / y); }
  whole = floor(quotient);
  return quotient - whole > 0.5 ? whole + 1.0 : whole;
}

/*@ floor_divide_f32: */
static float floor_divide_f32(float x, float y) {
  float rest, quotient, whole;
  if (y == 0.0f) { return x / y; }
  rest = fmodf(x, y);
  quotient = (x - rest) / y;
  if (rest != 0.0f && (y < 0.0f) != (rest < 0.0f)) { quotient -= 1.0f; }
  if (quotient == 0.0f) { return copysignf(0.0f, x / y); }
  whole = floorf(quotient);
  return quotient - whole > 0.5f ? whole + 1.0f : whole;
}

/*@ floor_divide_i64: */
static int64_t floor_divide_i64(int64_t a, int64_t b) {
  int64_t q;
  if (b == -1) { return (int64_t)(0u - (uint64_t)a); }
  q = a / b;
  return q * b != a && (a < 0) != (b < 0) ? q - 1 : q;
}

/*@ floor_divide_u64: */
static uint64_t floor_divide_u64(uint64_t a, uint64_t b) { return a / b; }

/*@ fmod_i64: */
static int64_t fmod_i64(int64_t a, int64_t b) { return b == -1 ? 0 : a % b; }

/*@ fmod_u64: */
static uint64_t fmod_u64(uint64_t a, uint64_t b) { return a % b; }

/*@ power_u64: */
static uint64_t power_u64(uint64_t base, uint64_t exponent) {
  uint64_t result = 1;
  for (; exponent; exponent >>= 1, base *= base) {
    if (exponent & 1) { result *= base; }
  }
  return result;
}

/*@ power_i64: power_u64 */
/* To a negative power 0, but for the bases 1 and -1. */
static int64_t power_i64(int64_t base, int64_t exponent) {
  if (exponent >= 0) { return (int64_t)power_u64((uint64_t)base, (uint64_t)exponent); }
  return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;
}

/*@ whole_i64: */
/* The number without its fraction; what int64 cannot hold is its lowest number. */
static int64_t whole_i64(double x) { return x >= -9223372036854775808.0 && x < 9223372036854775808.0 ? (int64_t)x : INT64_MIN; }

/*@ whole_u64: whole_i64 */
static uint64_t whole_u64(double x) { return x >= 9223372036854775808.0 && x < 18446744073709551616.0 ? (uint64_t)x : (uint64_t)whole_i64(x); }

/*@ read_bf16: */
static inline float read_bf16(uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float x;
  memcpy(&x, &wide, sizeof x);
  return x;
}

/*@ store_bf16: */
/* To the nearest, of two the even one. */
static inline uint16_t store_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (x != x) { return (uint16_t)(0x7FC0u | (bits >> 16 & 0x8000u)); }
  return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/*@ round_bf16: read_bf16 store_bf16 */
static inline float round_bf16(float x) { return read_bf16(store_bf16(x)); }

/*@ read_f16: */
static inline float read_f16(uint16_t bits) {
  const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, fraction = bits & 0x3FFu, exponent = bits >> 10 & 0x1Fu;
  uint32_t wide = sign | (exponent + 112u) << 23 | fraction << 13;
  float x;
  if (exponent == 0) {
    x = (float)fraction * 5.9604644775390625e-8f;
    return sign ? -x : x;
  }
  if (exponent == 31) { wide = sign | 0x7F800000u | fraction << 13; }
  memcpy(&x, &wide, sizeof x);
  return x;
}

/*@ store_f16: */
/* To the nearest, of two the even one; 2^-14 is the least number that is not subnormal, 65520 rounds to infinity. */
static inline uint16_t store_f16(float x) {
  uint32_t bits, size, sign;
  memcpy(&bits, &x, sizeof bits);
  sign = bits >> 16 & 0x8000u;
  size = bits & 0x7FFFFFFFu;
  if (size > 0x7F800000u) { return (uint16_t)(sign | 0x7E00u); }
  if (size >= 0x477FF000u) { return (uint16_t)(sign | 0x7C00u); }
  if (size < 0x38800000u) { return (uint16_t)(sign | (uint32_t)rintf(fabsf(x) * 16777216.0f)); }
  return (uint16_t)(sign | ((size - 0x38000000u + 0xFFFu + (size >> 13 & 1u)) >> 13));
}

/*@ round_f16: read_f16 store_f16 */
static inline float round_f16(float x) { return read_f16(store_f16(x)); }

/*@ round_f64_f16: round_f16 */
/* Rounded once: to float so that its last bit says whether anything was cut off, which leaves the second rounding right. */
static inline float round_f64_f16(double x) {
  float cut = (float)x;
  uint32_t bits;
  if (x != x || (double)cut == x) { return round_f16(cut); }
  if (fabs((double)cut) > fabs(x)) { cut = nextafterf(cut, 0.0f); }
  memcpy(&bits, &cut, sizeof bits);
  bits |= 1u;
  memcpy(&cut, &bits, sizeof cut);
  return round_f16(cut);
}

/*@ nextafter_f32: */
static float nextafter_f32(float x, float y) { return nextafterf(x, y); }

/*@ nextafter_f64: */
static double nextafter_f64(double x, double y) { return nextafter(x, y); }

/*@ nextafter_bf16: read_bf16 store_bf16 */
static float nextafter_bf16(float x, float y) {
  uint16_t bits = store_bf16(x);
  if (x != x || y != y) { return x + y; }
  if (x == y) { return y; }
  if (x == 0.0f) { return y > 0.0f ? read_bf16(1) : read_bf16(0x8001u); }
  bits = (uint16_t)((y > x) == (x > 0.0f) ? bits + 1 : bits - 1);
  return read_bf16(bits);
}

/*@ nextafter_f16: read_f16 store_f16 */
static float nextafter_f16(float x, float y) {
  uint16_t bits = store_f16(x);
  if (x != x || y != y) { return x + y; }
  if (x == y) { return y; }
  if (x == 0.0f) { return y > 0.0f ? read_f16(1) : read_f16(0x8001u); }
  bits = (uint16_t)((y > x) == (x > 0.0f) ? bits + 1 : bits - 1);
  return read_f16(bits);
}
