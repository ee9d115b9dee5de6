/*@ next_draw: */
/* SplitMix64. */
static uint64_t next_draw(uint64_t *state) {
  uint64_t x = *state += UINT64_C(0x9E3779B97F4A7C15);
  x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
  return x ^ x >> 31;
}

/*@ draw_normal: next_draw */
/* The sum of twelve uniform numbers less six, in integers. */
static double draw_normal(uint64_t *state) {
  int64_t total = 0;
  uint64_t x;
  int k, part;
  for (k = 0; k < 3; ++k) {
    x = next_draw(state);
    for (part = 0; part < 64; part += 16) { total += (int64_t)(x >> part & 0xFFFFu); }
  }
  x = next_draw(state);
  return (double)(total * INT64_C(4294967296) + (int64_t)(x >> 32) - INT64_C(786420) * INT64_C(2147483648) - INT64_C(2147483648)) * 3.552713678800501e-15;
}

/*@ draw_uniform: next_draw */
static double draw_uniform(uint64_t *state) { return (double)(next_draw(state) >> 11) * 1.1102230246251565e-16; }
