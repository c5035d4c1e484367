// What: y = epilogue(norm(x) W^T) for packed weights of any format, one or several matrices side by side, and the two
//     small kernels that share its parts: rms_norm and embed.
// Invariant (the row contract): one output is
//       quantised  sum over blocks of 32 in order of fma(exact integer dot, weight scale * activation scale, .), then,
//                  for formats with a minimum, fma(minimum, activation scale * sum of codes, .)
//       float      sum over blocks of 32 in order of (sequential fma over the block's inputs)
//     in this order for every row count, tiling and thread split, so that a row's bits do not depend on its neighbours.
//     Activations are quantised per block of 32 to round_even(x * 127/max|x|); a block whose maximum is below 1e-30 is
//     zero; a NaN or infinity in a block makes the whole output row NaN (never a silent number).
// Interface: linear, rms_norm, embed (see kernels.h for shapes).
#include "kernels.h"
#include "scratch.h"
#include "simd.h"
#include "threads.h"

namespace llmos {
namespace LLMOS_ISA {

void linear(const LinearArgs& a);
void rms_norm(const NormArgs& a);
void embed(const EmbedArgs& a);

namespace {

// One block of 32 quantised activations of one row.
struct ActBlock {
  int8_t q[32];
  float scale, sum;                // sum = scale * (sum of q)
  int16_t whole[2], first_half[2]; // sums of q over inputs {4j, 4j+1} and {4j+2, 4j+3}: of the block, of its first 16
};
static_assert(sizeof(ActBlock) == 48, "three quarters of a cache line");

// ---- prologue ------------------------------------------------------------------------------------------------------

// x * rsqrt(mean(x^2) + eps) * w, k a multiple of 8 or a scalar tail; the sum of squares runs in eight lanes.
void normalise(const float* x, const float* w, float eps, int64_t k, float* y) {
  F8 squares = zero();
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) squares = fma(load(x + i), load(x + i), squares);
  float total = sum_lanes(squares);
  for (; i < k; ++i) total += x[i] * x[i];
  float r = 1.0f / __builtin_sqrtf(total / static_cast<float>(k) + eps);
  for (i = 0; i + 8 <= k; i += 8) store(y + i, mul(mul(load(x + i), set1(r)), load(w + i)));
  for (; i < k; ++i) y[i] = (x[i] * r) * w[i];
}

void quantise(const float* x, int64_t blocks, ActBlock* out) {
  for (int64_t b = 0; b < blocks; ++b, x += 32, ++out) {
    F8 v[4], top = zero(), poison = zero();
    for (int i = 0; i < 4; ++i) {
      v[i] = load(x + 8 * i);
      top = max(top, abs(v[i]));
      poison = fma(v[i], zero(), poison);  // NaN where v is not finite
    }
    float amax = max_lanes(top), bad = sum_lanes(poison);
    float inverse = amax >= 1e-30f ? 127.0f / amax : 0.0f;
    if (bad != bad) {
      inverse = 0.0f;
      for (int i = 0; i < 4; ++i) v[i] = zero();
    }
    for (int i = 0; i < 4; ++i) store_i8(out->q + 8 * i, round_even(mul(v[i], set1(inverse))));
    pair_sums(out->q, out->whole, out->first_half);
    float scale = bad != bad ? bad : amax >= 1e-30f ? amax / 127.0f : 0.0f;
    out->scale = scale;
    out->sum = scale * static_cast<float>(out->whole[0] + out->whole[1]);
  }
}

// ---- quantised products --------------------------------------------------------------------------------------------

// Codes of one block to one byte each: u[j] is k-group j of the tile's eight rows.
template <int F>
inline void unpack(const uint8_t* p, B32 u[8]) {
  if constexpr (F == kQ8) {
    for (int j = 0; j < 8; ++j) u[j] = load_bytes(p + 32 * j);
    return;
  }
  for (int j = 0; j < 4; ++j) {
    B32 v = load_bytes(p + 32 * j);
    u[j] = mask_bytes(v, 15);
    u[j + 4] = mask_bytes(shift_right<4>(v), 15);
  }
  if constexpr (F == kQ5 || F == kQ5M) {
    B32 h = load_bytes(p + 128);
    u[0] = either(u[0], mask_bytes(shift_left<4>(h), 16));
    u[1] = either(u[1], mask_bytes(shift_left<3>(h), 16));
    u[2] = either(u[2], mask_bytes(shift_left<2>(h), 16));
    u[3] = either(u[3], mask_bytes(shift_left<1>(h), 16));
    u[4] = either(u[4], mask_bytes(h, 16));
    u[5] = either(u[5], mask_bytes(shift_right<1>(h), 16));
    u[6] = either(u[6], mask_bytes(shift_right<2>(h), 16));
    u[7] = either(u[7], mask_bytes(shift_right<3>(h), 16));
  }
  if constexpr (F == kQ6) {
    for (int half = 0; half < 2; ++half) {
      B32 h = load_bytes(p + 128 + 32 * half);
      B32* g = u + 4 * half;
      g[0] = either(g[0], mask_bytes(shift_left<4>(h), 48));
      g[1] = either(g[1], mask_bytes(shift_left<2>(h), 48));
      g[2] = either(g[2], mask_bytes(h, 48));
      g[3] = either(g[3], mask_bytes(shift_right<2>(h), 48));
    }
  }
}

// One block of one activation row against one tile: y += the block's terms, in the order of the row contract.
template <int F>
inline F8 block_terms(const B32 u[8], const F8 scale[2], F8 minimum, const ActBlock& x, F8 y) {
  F8 sx = set1(x.scale);
  if constexpr (F == kQ8) {
    Acc8 acc = acc8_start(repeat4(x.whole));
    for (int j = 0; j < 8; ++j) acc = acc8_dot(acc, u[j], repeat4(x.q + 4 * j));
    return fma(acc8_sum(acc), mul(scale[0], sx), y);
  } else if constexpr (F == kQ6) {
    B32 whole = repeat4(x.whole), first = repeat4(x.first_half);
    Acc a = acc_offset(first, code_offset(F)), b = acc_offset(sub_i16(whole, first), code_offset(F));
    for (int j = 0; j < 4; ++j) {
      a = acc_dot(a, u[j], repeat4(x.q + 4 * j));
      b = acc_dot(b, u[j + 4], repeat4(x.q + 16 + 4 * j));
    }
    y = fma(acc_sum(a), mul(scale[0], sx), y);
    return fma(acc_sum(b), mul(scale[1], sx), y);
  } else {
    // Five-bit codes need an offset to stay in 16 bits; where the format has a minimum it is given back here.
    constexpr int offset = F == kQ5M ? 16 : code_offset(F);
    Acc acc = offset ? acc_offset(repeat4(x.whole), offset) : acc_zero();
    for (int j = 0; j < 8; ++j) acc = acc_dot(acc, u[j], repeat4(x.q + 4 * j));
    F8 dot = acc_sum(acc);
    if constexpr (F == kQ5M) dot = add(dot, set1(16.0f * static_cast<float>(x.whole[0] + x.whole[1])));
    y = fma(dot, mul(scale[0], sx), y);
    if constexpr (has_minimum(F)) y = fma(minimum, set1(x.sum), y);
    return y;
  }
}

template <int F>
inline void load_scales(const uint8_t* p, F8 scale[2], F8* minimum) {
  scale[0] = load_f16(p + code_bytes(F));
  scale[1] = F == kQ6 ? load_f16(p + code_bytes(F) + 16) : zero();
  *minimum = has_minimum(F) ? load_f16(p + code_bytes(F) + 16) : zero();
}

// Few rows: weights go from memory through registers once. out[r * stride .. + 8].
template <int F, int R>
void tile_direct(const uint8_t* w, int64_t blocks, const ActBlock* x, float* out, int64_t stride) {
  F8 y[R];
  for (int r = 0; r < R; ++r) y[r] = zero();
  for (int64_t b = 0; b < blocks; ++b, w += block_bytes(F)) {
    B32 u[8];
    F8 scale[2], minimum;
    prefetch(w + 4096);
    prefetch(w + 4096 + 64);
    prefetch(w + 4096 + 128);
    unpack<F>(w, u);
    load_scales<F>(w, scale, &minimum);
    for (int r = 0; r < R; ++r) y[r] = block_terms<F>(u, scale, minimum, x[r * blocks + b], y[r]);
  }
  for (int r = 0; r < R; ++r) store(out + r * stride, y[r]);
}

// Many rows: the codes of C tiles are unpacked once (256 bytes and 2 x 8 floats a block and tile) and reused for every
// group of R rows; R x C integer sums live in registers, the float sums in L1.
constexpr int64_t kUnpacked = 256 + 64;

template <int F>
void unpack_tile(const uint8_t* w, int64_t blocks, uint8_t* out, int64_t stride) {
  for (int64_t b = 0; b < blocks; ++b, w += block_bytes(F), out += stride) {
    B32 u[8];
    F8 scale[2], minimum;
    unpack<F>(w, u);
    load_scales<F>(w, scale, &minimum);
    for (int j = 0; j < 8; ++j) store_bytes(out + 32 * j, u[j]);
    float* f = reinterpret_cast<float*>(out + 256);
    store(f, scale[0]);
    store(f + 8, F == kQ6 ? scale[1] : minimum);
  }
}

// Integer sums of k-groups [from, to) of one block.
template <int R, int C>
LLMOS_INLINE void sums(const uint8_t* w, const ActBlock* const* x, int from, int to, Acc acc[R][C]) {
LLMOS_UNROLL
  for (int j = from; j < to; ++j) {
    B32 u[C];
    for (int c = 0; c < C; ++c) u[c] = load_bytes(w + c * kUnpacked + 32 * j);
LLMOS_UNROLL
    for (int r = 0; r < R; ++r) {
      B32 q = repeat4(x[r]->q + 4 * j);
      for (int c = 0; c < C; ++c) acc[r][c] = acc_dot(acc[r][c], u[c], q);
    }
  }
}

template <int R, int C>
LLMOS_INLINE void add_terms(const uint8_t* w, int which, const ActBlock* const* x, const Acc acc[R][C], float* y) {
  for (int c = 0; c < C; ++c) {
    F8 scale = load(reinterpret_cast<const float*>(w + c * kUnpacked + 256) + 8 * which);
    for (int r = 0; r < R; ++r) {
      float* to = y + (r * C + c) * 8;
      store(to, fma(acc_sum(acc[r][c]), mul(scale, set1(x[r]->scale)), load(to)));
    }
  }
}

template <int F, int R, int C>
LLMOS_INLINE void block_unpacked(const uint8_t* w, const ActBlock* const* x, float* y) {
  if constexpr (F == kQ8) {
    for (int c = 0; c < C; ++c) {
      Acc8 acc[R];
      for (int r = 0; r < R; ++r) acc[r] = acc8_start(repeat4(x[r]->whole));
LLMOS_UNROLL
      for (int j = 0; j < 8; ++j) {
        B32 u = load_bytes(w + c * kUnpacked + 32 * j);
        for (int r = 0; r < R; ++r) acc[r] = acc8_dot(acc[r], u, repeat4(x[r]->q + 4 * j));
      }
      F8 scale = load(reinterpret_cast<const float*>(w + c * kUnpacked + 256));
      for (int r = 0; r < R; ++r) {
        float* to = y + (r * C + c) * 8;
        store(to, fma(acc8_sum(acc[r]), mul(scale, set1(x[r]->scale)), load(to)));
      }
    }
  } else if constexpr (F == kQ6) {
    Acc acc[R][C];
    for (int half = 0; half < 2; ++half) {
      for (int r = 0; r < R; ++r) {
        B32 first = repeat4(x[r]->first_half);
        Acc start = acc_offset(half ? sub_i16(repeat4(x[r]->whole), first) : first, code_offset(F));
        for (int c = 0; c < C; ++c) acc[r][c] = start;
      }
      sums<R, C>(w, x, 4 * half, 4 * half + 4, acc);
      add_terms<R, C>(w, half, x, acc, y);
    }
  } else {
    constexpr int offset = F == kQ5M ? 16 : code_offset(F);
    Acc acc[R][C];
    for (int r = 0; r < R; ++r) {
      Acc start = offset ? acc_offset(repeat4(x[r]->whole), offset) : acc_zero();
      for (int c = 0; c < C; ++c) acc[r][c] = start;
    }
    sums<R, C>(w, x, 0, 8, acc);
    if constexpr (!has_minimum(F)) return add_terms<R, C>(w, 0, x, acc, y);
    for (int c = 0; c < C; ++c) {
      const float* f = reinterpret_cast<const float*>(w + c * kUnpacked + 256);
      F8 scale = load(f), minimum = load(f + 8);
      for (int r = 0; r < R; ++r) {
        float* to = y + (r * C + c) * 8;
        F8 dot = acc_sum(acc[r][c]);
        if constexpr (F == kQ5M) dot = add(dot, set1(16.0f * static_cast<float>(x[r]->whole[0] + x[r]->whole[1])));
        F8 t = fma(dot, mul(scale, set1(x[r]->scale)), load(to));
        store(to, fma(minimum, set1(x[r]->sum), t));
      }
    }
  }
}

// y[R][C * 8]
template <int F, int R, int C>
void tile_unpacked(const uint8_t* w, int64_t blocks, const ActBlock* q, float* y) {
  const ActBlock* x[R];
  for (int r = 0; r < R; ++r) x[r] = q + r * blocks;
  for (int i = 0; i < R * C; ++i) store(y + 8 * i, zero());
  for (int64_t b = 0; b < blocks; ++b, w += C * kUnpacked) {
    block_unpacked<F, R, C>(w, x, y);
    for (int r = 0; r < R; ++r) ++x[r];
  }
}

// ---- float products ------------------------------------------------------------------------------------------------

// out[R][C * 8]; w points to C tiles.
template <int F, int R, int C>
void tile_float(const uint8_t* const* w, int64_t blocks, const float* x, float* out) {
  for (int i = 0; i < R * C; ++i) store(out + 8 * i, zero());
  for (int64_t b = 0; b < blocks; ++b) {
    F8 part[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) part[r][c] = zero();
    for (int i = 0; i < 32; ++i) {
      F8 v[C];
      for (int c = 0; c < C; ++c) {
        const uint8_t* p = w[c] + b * block_bytes(F);
        v[c] = F == kBF16 ? load_bf16(p + 16 * i) : load(reinterpret_cast<const float*>(p) + 8 * i);
      }
      for (int r = 0; r < R; ++r) {
        F8 one = set1(x[(r * blocks + b) * 32 + i]);
        for (int c = 0; c < C; ++c) part[r][c] = fma(v[c], one, part[r][c]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        float* y = out + (r * C + c) * 8;
        store(y, add(load(y), part[r][c]));
      }
  }
}

// ---- one or two tiles against all rows -------------------------------------------------------------------------------

struct Inputs {
  int64_t rows, blocks;
  const ActBlock* q;   // [rows, blocks], where some segment is quantised
  const float* f;      // [rows, blocks * 32], where some segment is not
};

constexpr int64_t kDirectRows = 4;

// out[row][C * 8] for every row; w points to C tiles of one format.
template <int F, int C>
void tile_rows(const Inputs& in, const uint8_t* const* w, uint8_t* unpacked, float* out) {
  constexpr int64_t width = C * 8;
  int64_t r = 0;
  if constexpr (is_float(F)) {
    for (; r + 4 <= in.rows; r += 4) tile_float<F, 4, C>(w, in.blocks, in.f + r * in.blocks * 32, out + r * width);
    for (; r < in.rows; ++r) tile_float<F, 1, C>(w, in.blocks, in.f + r * in.blocks * 32, out + r * width);
  } else if (in.rows <= kDirectRows) {
    for (int c = 0; c < C; ++c) {
      float* y = out + 8 * c;
      switch (in.rows) {
        case 1: tile_direct<F, 1>(w[c], in.blocks, in.q, y, width); break;
        case 2: tile_direct<F, 2>(w[c], in.blocks, in.q, y, width); break;
        case 3: tile_direct<F, 3>(w[c], in.blocks, in.q, y, width); break;
        case 4: tile_direct<F, 4>(w[c], in.blocks, in.q, y, width); break;
      }
    }
  } else {
    for (int c = 0; c < C; ++c) unpack_tile<F>(w[c], in.blocks, unpacked + c * kUnpacked, C * kUnpacked);
    for (; r + 4 <= in.rows; r += 4) tile_unpacked<F, 4, C>(unpacked, in.blocks, in.q + r * in.blocks, out + r * width);
    switch (in.rows - r) {
      case 1: tile_unpacked<F, 1, C>(unpacked, in.blocks, in.q + r * in.blocks, out + r * width); break;
      case 2: tile_unpacked<F, 2, C>(unpacked, in.blocks, in.q + r * in.blocks, out + r * width); break;
      case 3: tile_unpacked<F, 3, C>(unpacked, in.blocks, in.q + r * in.blocks, out + r * width); break;
    }
  }
}

template <int C>
void tile_rows(int format, const Inputs& in, const uint8_t* const* w, uint8_t* unpacked, float* out) {
  switch (format) {
    case kQ4: return tile_rows<kQ4, C>(in, w, unpacked, out);
    case kQ4M: return tile_rows<kQ4M, C>(in, w, unpacked, out);
    case kQ5: return tile_rows<kQ5, C>(in, w, unpacked, out);
    case kQ5M: return tile_rows<kQ5M, C>(in, w, unpacked, out);
    case kQ6: return tile_rows<kQ6, C>(in, w, unpacked, out);
    case kQ8: return tile_rows<kQ8, C>(in, w, unpacked, out);
    case kBF16: return tile_rows<kBF16, C>(in, w, unpacked, out);
    case kF32: return tile_rows<kF32, C>(in, w, unpacked, out);
  }
}

// ---- epilogue ------------------------------------------------------------------------------------------------------

inline F8 load_some(const float* p, int64_t n) {
  if (n == 8) return load(p);
  float t[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int64_t i = 0; i < n; ++i) t[i] = p[i];
  return load(t);
}

inline void store_some(float* p, F8 v, int64_t n) {
  if (n == 8) return store(p, v);
  float t[8];
  store(t, v);
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
}

inline F8 activate(int kind, F8 g) {
  if (kind == kSilu) return div(g, add(set1(1.0f), exp(sub(zero(), g))));
  // 0.5 g (1 + tanh z) = g / (1 + exp(-2 z)), z = sqrt(2/pi) (g + 0.044715 g^3)
  F8 z = mul(g, fma(mul(g, g), set1(0.044715f), set1(1.0f)));
  return div(g, add(set1(1.0f), exp(mul(z, set1(-1.5957691216057308f)))));
}

// One tile's raw outputs, raw[row * stride .. + 8], to columns c .. c + left (at most 8).
void finish(const LinearArgs& a, const float* raw, int64_t stride, int64_t c, int64_t left, float unit) {
  const int64_t n = left < 8 ? left : 8;
  const F8 bias = a.bias ? load_some(a.bias + c, n) : zero();
  for (int64_t r = 0; r < a.rows; ++r) {
    F8 y = mul(load(raw + r * stride), set1(unit));
    if (a.bias) y = add(y, bias);
    if (a.residual) y = add(load_some(a.residual + r * a.n + c, n), y);
    store_some(a.y + r * a.n + c, y, n);
  }
}

void finish_gated(const LinearArgs& a, const float* gate, const float* up, int64_t gate_stride, int64_t up_stride,
                  int64_t c) {
  const int64_t n = a.n - c < 8 ? a.n - c : 8;
  const F8 gate_bias = a.bias ? load_some(a.bias + c, n) : zero();
  const F8 up_bias = a.bias ? load_some(a.bias + a.n + c, n) : zero();
  for (int64_t r = 0; r < a.rows; ++r) {
    F8 g = mul(load(gate + r * gate_stride), set1(a.segment[0].unit));
    F8 u = mul(load(up + r * up_stride), set1(a.segment[1].unit));
    if (a.bias) {
      g = add(g, gate_bias);
      u = add(u, up_bias);
    }
    F8 y = mul(activate(a.activation, g), u);
    if (a.residual) y = add(load_some(a.residual + r * a.n + c, n), y);
    store_some(a.y + r * a.n + c, y, n);
  }
}

}  // namespace

void linear(const LinearArgs& a) {
  const int64_t blocks = blocks_of(a.k), padded = blocks * 32;
  bool quantised = false, floats = false;
  for (int s = 0; s < a.segments; ++s) (is_float(a.segment[s].format) ? floats : quantised) = true;

  // Prologue: norm and quantisation, a row at a time.
  Scratch scratch(thread_arena(0));
  ActBlock* q = scratch.take<ActBlock>(quantised ? a.rows * blocks : 0);
  float* f = scratch.take<float>(floats || a.k != padded || a.norm ? a.rows * padded : 0);
  const bool copied = floats || a.k != padded || a.norm;
  auto prepare = [&](int64_t r) {
    const float* x = a.x + r * a.k;
    if (copied) {
      float* y = f + r * padded;
      if (a.norm) normalise(x, a.norm, a.eps, a.k, y);
      else memcpy(y, x, static_cast<size_t>(a.k) * 4);
      for (int64_t i = a.k; i < padded; ++i) y[i] = 0.0f;
      x = y;
    }
    if (quantised) quantise(x, blocks, q + r * blocks);
  };
  if (a.rows * a.k < 16384) {
    for (int64_t r = 0; r < a.rows; ++r) prepare(r);
  } else {
    const int64_t step = 4096 / a.k + 1;
    parallel(static_cast<int>((a.rows + step - 1) / step), [&](int i) {
      for (int64_t r = i * step; r < a.rows && r < (i + 1) * step; ++r) prepare(r);
    });
  }

  // Products: tasks are ranges of output tiles; a gated pair counts as one.
  const bool gated = a.activation != kNone;
  int64_t tiles = 0;
  for (int s = 0; s < (gated ? 1 : a.segments); ++s) tiles += tiles_of(a.segment[s].n);
  const int64_t work = tiles * blocks * (gated ? 2 : 1) * (a.rows < 4 ? 4 : a.rows);
  int64_t tasks = work / 2048;  // about 20 us each
  if (tasks > 8 * threads()) tasks = 8 * threads();
  if (tasks > tiles) tasks = tiles;
  if (tasks < 1 || threads() == 1) tasks = 1;

  auto run = [&](int task) {
    const int64_t begin = tiles * task / tasks, end = tiles * (task + 1) / tasks;
    Scratch local(thread_arena(1));
    const Inputs in{a.rows, blocks, q, f};
    uint8_t* unpacked = local.take<uint8_t>(2 * blocks * kUnpacked);
    float* raw[2] = {local.take<float>(a.rows * 16), local.take<float>(a.rows * 8)};
    int s = 0;
    int64_t tile = begin, column = 0;  // tile within segment s, whose outputs start at column
    while (!gated && tile >= tiles_of(a.segment[s].n)) {
      tile -= tiles_of(a.segment[s].n);
      column += a.segment[s++].n;
    }
    for (int64_t t = begin; t < end;) {
      if (!gated && tile == tiles_of(a.segment[s].n)) {
        tile = 0;
        column += a.segment[s++].n;
      }
      const Segment &w = a.segment[s], &up = a.segment[gated ? 1 : s];
      const int64_t tile_bytes = blocks * block_bytes(w.format), c = column + tile * 8;
      const uint8_t* at[2] = {w.tiles + tile * tile_bytes, nullptr};
      if (gated) {
        at[1] = up.tiles + tile * blocks * block_bytes(up.format);
        if (w.format == up.format) {
          tile_rows<2>(w.format, in, at, unpacked, raw[0]);
          finish_gated(a, raw[0], raw[0] + 8, 16, 16, c);
        } else {
          tile_rows<1>(w.format, in, at, unpacked, raw[0]);
          tile_rows<1>(up.format, in, at + 1, unpacked, raw[1]);
          finish_gated(a, raw[0], raw[1], 8, 8, c);
        }
        ++t, ++tile;
      } else if (t + 1 < end && tile + 1 < tiles_of(w.n)) {
        at[1] = at[0] + tile_bytes;
        tile_rows<2>(w.format, in, at, unpacked, raw[0]);
        finish(a, raw[0], 16, c, 8, w.unit);
        finish(a, raw[0] + 8, 16, c + 8, column + w.n - c - 8, w.unit);
        t += 2, tile += 2;
      } else {
        tile_rows<1>(w.format, in, at, unpacked, raw[0]);
        finish(a, raw[0], 8, c, column + w.n - c, w.unit);
        ++t, ++tile;
      }
    }
  };
  parallel(static_cast<int>(tasks), run);
}

void rms_norm(const NormArgs& a) {
  auto run = [&](int64_t r) {
    float* y = a.y + r * a.d;
    normalise(a.x + r * a.d, a.weight, a.eps, a.d, y);
    if (!a.residual) return;
    const float* other = a.residual + r * a.d;
    for (int64_t i = 0; i < a.d; ++i) y[i] = other[i] + y[i];
  };
  if (a.rows * a.d < 32768) {
    for (int64_t r = 0; r < a.rows; ++r) run(r);
  } else {
    const int64_t step = 8192 / a.d + 1;
    parallel(static_cast<int>((a.rows + step - 1) / step), [&](int i) {
      for (int64_t r = i * step; r < a.rows && r < (i + 1) * step; ++r) run(r);
    });
  }
}

namespace {

// Row `lane` of a tile as floats; the same values that the products use.
template <int F>
void dequantise_row(const uint8_t* w, int64_t k, int lane, float unit, float* y) {
  for (int64_t b = 0; b < blocks_of(k); ++b, w += block_bytes(F)) {
    const int64_t n = k - 32 * b < 32 ? k - 32 * b : 32;
    if constexpr (is_float(F)) {
      for (int64_t i = 0; i < n; ++i) {
        if constexpr (F == kF32) {
          y[32 * b + i] = bits_to_float(load_u32(w + 4 * (8 * i + lane)));
        } else {
          uint16_t h;
          memcpy(&h, w + 2 * (8 * i + lane), 2);
          y[32 * b + i] = bf16_to_float(h);
        }
      }
    } else {
      B32 u[8];
      F8 scale[2], minimum;
      float s[2][8], m[8];
      uint8_t codes[256];
      unpack<F>(w, u);
      load_scales<F>(w, scale, &minimum);
      store(s[0], scale[0]);
      store(s[1], scale[F == kQ6 ? 1 : 0]);
      store(m, minimum);
      for (int j = 0; j < 8; ++j) store_bytes(codes + 32 * j, u[j]);
      for (int i = 0; i < 32; ++i) {
        uint8_t code = codes[32 * (i / 4) + 4 * lane + i % 4];
        int value = F == kQ8 ? static_cast<int8_t>(code) : code - code_offset(F);
        y[32 * b + i] = (s[i / 16][lane] * static_cast<float>(value) + m[lane]) * unit;
      }
    }
  }
}

void dequantise_row(const Segment& t, int64_t k, int64_t row, float* y) {
  const uint8_t* w = t.tiles + (row / 8) * blocks_of(k) * block_bytes(t.format);
  const int lane = static_cast<int>(row % 8);
  switch (t.format) {
    case kQ4: return dequantise_row<kQ4>(w, k, lane, t.unit, y);
    case kQ4M: return dequantise_row<kQ4M>(w, k, lane, t.unit, y);
    case kQ5: return dequantise_row<kQ5>(w, k, lane, t.unit, y);
    case kQ5M: return dequantise_row<kQ5M>(w, k, lane, t.unit, y);
    case kQ6: return dequantise_row<kQ6>(w, k, lane, t.unit, y);
    case kQ8: return dequantise_row<kQ8>(w, k, lane, t.unit, y);
    case kBF16: return dequantise_row<kBF16>(w, k, lane, t.unit, y);
    case kF32: return dequantise_row<kF32>(w, k, lane, t.unit, y);
  }
}

}  // namespace

void embed(const EmbedArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    float* y = a.y + r * a.k;
    dequantise_row(a.table, a.k, a.tokens[r], y);
    if (a.scale != 1.0f)
      for (int64_t i = 0; i < a.k; ++i) y[i] *= a.scale;
  }
}

}  // namespace LLMOS_ISA
}  // namespace llmos
