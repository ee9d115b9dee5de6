/*@ matmul_S: */
/* z[i, j] = the sum over k of x[i, k] * y[k, j]; z is row-major with rows of `step`. Blocks of 4 rows and 16 columns stay in registers. */
static void matmul_S(const T *restrict x, ptrdiff_t xi, ptrdiff_t xk, const T *restrict y, ptrdiff_t yk, ptrdiff_t yj, T *restrict z,
                     ptrdiff_t step, ptrdiff_t rows, ptrdiff_t inner, ptrdiff_t columns) {
  ptrdiff_t i, j, k;
  int r, c;
  for (j = 0; j < columns; j += 16) {
    const int width = columns - j < 16 ? (int)(columns - j) : 16;
    for (i = 0; i < rows; i += 4) {
      const int height = rows - i < 4 ? (int)(rows - i) : 4;
      A sum[4][16] = {{0}};
      if (height == 4 && width == 16 && yj == 1) {
        for (k = 0; k < inner; ++k) {
          const T *b = y + k * yk + j;
          const A a0 = (A)READ(x[i * xi + k * xk]), a1 = (A)READ(x[(i + 1) * xi + k * xk]);
          const A a2 = (A)READ(x[(i + 2) * xi + k * xk]), a3 = (A)READ(x[(i + 3) * xi + k * xk]);
          for (c = 0; c < 16; ++c) {
            const A v = (A)READ(b[c]);
            sum[0][c] += a0 * v;
            sum[1][c] += a1 * v;
            sum[2][c] += a2 * v;
            sum[3][c] += a3 * v;
          }
        }
      } else if (width == 16 && yj == 1) {
        for (r = 0; r < height; ++r) {
          for (k = 0; k < inner; ++k) {
            const T *b = y + k * yk + j;
            const A a0 = (A)READ(x[(i + r) * xi + k * xk]);
            for (c = 0; c < 16; ++c) { sum[r][c] += a0 * (A)READ(b[c]); }
          }
        }
      } else {
        for (r = 0; r < height; ++r) {
          for (c = 0; c < width; ++c) {
            A total = 0;
            for (k = 0; k < inner; ++k) { total += (A)READ(x[(i + r) * xi + k * xk]) * (A)READ(y[k * yk + (j + c) * yj]); }
            sum[r][c] = total;
          }
        }
      }
      for (r = 0; r < height; ++r) {
        for (c = 0; c < width; ++c) { z[(i + r) * step + j + c] = STORE((V)sum[r][c]); }
      }
    }
  }
}

/*@ convolution_S: */
/* size: batch, groups, channels in and out of a group, then input, kernel, output, stride, dilation, padding of three axes each. */
static void convolution_S(const T *restrict x, const T *restrict weight, const T *restrict bias, T *restrict y, const ptrdiff_t *size) {
  const ptrdiff_t groups = size[1], in = size[2], out = size[3];
  const ptrdiff_t *n = size + 4, *kernel = size + 7, *m = size + 10, *stride = size + 13, *dilation = size + 16, *pad = size + 19;
  const ptrdiff_t taps = kernel[0] * kernel[1] * kernel[2], plane = n[0] * n[1] * n[2], places = m[0] * m[1] * m[2];
  ptrdiff_t image, o, p0, p1, p2, c, k0, k1, k2;
  int r, q;
  for (image = 0; image < size[0] * groups; ++image) {
    const ptrdiff_t group = image % groups;
    const T *source = x + image * in * plane;
    for (o = 0; o < out; o += 4) {
      const int height = out - o < 4 ? (int)(out - o) : 4;
      const T *w = weight + (group * out + o) * in * taps;
      for (p0 = 0; p0 < m[0]; ++p0) {
        for (p1 = 0; p1 < m[1]; ++p1) {
          for (p2 = 0; p2 < m[2]; p2 += 16) {
            const int width = m[2] - p2 < 16 ? (int)(m[2] - p2) : 16;
            A sum[4][16] = {{0}};
            for (c = 0; c < in; ++c) {
              for (k0 = 0; k0 < kernel[0]; ++k0) {
                const ptrdiff_t i0 = p0 * stride[0] + k0 * dilation[0] - pad[0];
                if (i0 < 0 || i0 >= n[0]) { continue; }
                for (k1 = 0; k1 < kernel[1]; ++k1) {
                  const ptrdiff_t i1 = p1 * stride[1] + k1 * dilation[1] - pad[1];
                  const T *row = source + ((c * n[0] + i0) * n[1] + i1) * n[2];
                  if (i1 < 0 || i1 >= n[1]) { continue; }
                  for (k2 = 0; k2 < kernel[2]; ++k2) {
                    const ptrdiff_t i2 = p2 * stride[2] + k2 * dilation[2] - pad[2];
                    const T *tap = w + c * taps + (k0 * kernel[1] + k1) * kernel[2] + k2;
                    A v[16];
                    if (i2 >= 0 && i2 + 15 * stride[2] < n[2]) {
                      if (stride[2] == 1) {
                        for (q = 0; q < 16; ++q) { v[q] = (A)READ(row[i2 + q]); }
                      } else {
                        for (q = 0; q < 16; ++q) { v[q] = (A)READ(row[i2 + q * stride[2]]); }
                      }
                    } else {
                      const ptrdiff_t limit = n[2] - 1 - i2;
                      const int start = i2 >= 0 ? 0 : (int)((stride[2] - 1 - i2) / stride[2]);
                      const int end = limit < 0 ? 0 : limit / stride[2] + 1 < width ? (int)(limit / stride[2]) + 1 : width;
                      for (q = 0; q < 16; ++q) { v[q] = (A)0; }
                      for (q = start; q < end; ++q) { v[q] = (A)READ(row[i2 + q * stride[2]]); }
                    }
                    if (height == 4) {
                      const A w0 = (A)READ(tap[0]), w1 = (A)READ(tap[in * taps]), w2 = (A)READ(tap[2 * in * taps]), w3 = (A)READ(tap[3 * in * taps]);
                      for (q = 0; q < 16; ++q) {
                        sum[0][q] += w0 * v[q];
                        sum[1][q] += w1 * v[q];
                        sum[2][q] += w2 * v[q];
                        sum[3][q] += w3 * v[q];
                      }
                    } else {
                      for (r = 0; r < height; ++r) {
                        const A w0 = (A)READ(tap[r * in * taps]);
                        for (q = 0; q < 16; ++q) { sum[r][q] += w0 * v[q]; }
                      }
                    }
                  }
                }
              }
            }
            for (r = 0; r < height; ++r) {
              T *to = y + (image * out + o + r) * places + (p0 * m[1] + p1) * m[2] + p2;
              const A more = bias ? (A)READ(bias[group * out + o + r]) : (A)0;
              for (q = 0; q < width; ++q) { to[q] = STORE((V)(sum[r][q] + more)); }
            }
          }
        }
      }
    }
  }
}
