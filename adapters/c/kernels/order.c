/*@ before_S: */
/* Whether a comes before b in ascending order, NaN last. */
static inline int before_S(V a, V b) { return a < b || (b != b && a == a); }

/*@ rows_before_S: before_S */
/* Whether row a comes before row b, of `width` elements, in lexicographic order. */
static inline int rows_before_S(const T *a, const T *b, ptrdiff_t width) {
  ptrdiff_t i;
  for (i = 0; i < width; ++i) {
    const V u = READ(a[i]), v = READ(b[i]);
    if (before_S(u, v)) { return 1; }
    if (before_S(v, u)) { return 0; }
  }
  return 0;
}

/*@ same_rows_S: */
static int same_rows_S(const T *a, const T *b, ptrdiff_t width) {
  ptrdiff_t i;
  for (i = 0; i < width; ++i) {
    if (!(READ(a[i]) == READ(b[i]))) { return 0; }
  }
  return 1;
}

/*@ order_S: rows_before_S */
/* A stable merge sort: in `order` the places of n rows, `step` apart and of `width` elements. `spare` has room for n. Equal rows keep
   their order. */
static void order_S(const T *x, ptrdiff_t step, ptrdiff_t width, ptrdiff_t n, int descending, int64_t *order, int64_t *spare) {
  ptrdiff_t run, i;
  for (i = 0; i < n; ++i) { order[i] = i; }
  for (run = 1; run < n; run *= 2) {
    ptrdiff_t start;
    for (start = 0; start < n; start += 2 * run) {
      const ptrdiff_t middle = start + run < n ? start + run : n, end = middle + run < n ? middle + run : n;
      ptrdiff_t left = start, right = middle, to = start;
      while (left < middle && right < end) {
        const T *a = x + (ptrdiff_t)order[left] * step, *b = x + (ptrdiff_t)order[right] * step;
        if (descending ? rows_before_S(a, b, width) : rows_before_S(b, a, width)) {
          spare[to++] = order[right++];
        } else {
          spare[to++] = order[left++];
        }
      }
      while (left < middle) { spare[to++] = order[left++]; }
      while (right < end) { spare[to++] = order[right++]; }
    }
    memcpy(order, spare, (size_t)n * sizeof *order);
  }
}
