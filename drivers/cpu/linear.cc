// What: y = epilogue(norm(x) W^T) for packed weights of any format, one or several matrices side by side.
// Invariant (the row contract): one output is
//       quantised  sum over blocks of 32 in order of fma(exact integer dot, weight scale * activation scale, .), then, for
//                  formats with a minimum, fma(minimum, sum of activations, .); where centred, plus the sum over blocks in
//                  order of fma(sum of weights, centre, .)
//       float      sum over blocks of 32 in order of (sequential fma over the block's inputs)
//     in this order for every row count, tiling and thread split, so that a row's bits do not depend on its neighbours.
//     A NaN or infinity in a row makes the whole output row NaN (never a silent number).
// Interface: linear (see kernels.h for shapes).
#include "activations.h"
#include "epilogue.h"
#include "few.h"
#include "floats.h"
#include "many.h"
#include "norm.h"
#include "scratch.h"
#include "threads.h"

namespace llmos {
namespace LLMOS_ISA {

void linear(const LinearArgs& a);

namespace {

struct Inputs {
  int64_t rows, blocks;
  bool centred;
  const ActBlock* q;   // [rows, blocks], where some segment is quantised and the rows are few
  const Panel* panels; // where they are many, kAtOnce by kAtOnce [blocks, panels]; else null
  const float* f;      // [rows, blocks * 32], where some segment is not
};

// raw[live][C * 8]: the products of C tiles with rows [row, row + live).
template <int F, int C>
void product(const Inputs& in, int64_t row, int64_t live, const Tiles<C>& w, float* raw, uint8_t* room) {
  if constexpr (is_float(F)) {
    const float* x = in.f + row * in.blocks * 32;
    int64_t r = 0;
    for (; r + 4 <= live; r += 4) panel_float<F, 4, C>(w.at, in.blocks, x + r * in.blocks * 32, raw + r * C * 8);
    for (; r < live; ++r) panel_float<F, 1, C>(w.at, in.blocks, x + r * in.blocks * 32, raw + r * C * 8);
  } else if (in.panels) {
    tiles_many<F, C>(w.at, in.blocks, in.centred, in.panels + row / kPanelRows * in.blocks, live, raw, room);
  } else {
    tiles_few<F>(live, w, in.blocks, in.centred, in.q + row * in.blocks, raw);
  }
}

template <int C>
void product(int format, const Inputs& in, int64_t row, int64_t live, const Tiles<C>& w, float* raw, uint8_t* room) {
  switch (format) {
    case kQ4: return product<kQ4, C>(in, row, live, w, raw, room);
    case kQ4M: return product<kQ4M, C>(in, row, live, w, raw, room);
    case kQ4K: return product<kQ4K, C>(in, row, live, w, raw, room);
    case kQ5: return product<kQ5, C>(in, row, live, w, raw, room);
    case kQ5M: return product<kQ5M, C>(in, row, live, w, raw, room);
    case kQ5K: return product<kQ5K, C>(in, row, live, w, raw, room);
    case kQ6: return product<kQ6, C>(in, row, live, w, raw, room);
    case kQ8: return product<kQ8, C>(in, row, live, w, raw, room);
    case kBF16: return product<kBF16, C>(in, row, live, w, raw, room);
    case kF32: return product<kF32, C>(in, row, live, w, raw, room);
  }
}

// The rows as the products read them: normalised, padded to whole blocks, quantised where a matrix is.
Inputs prepare(const LinearArgs& a, Scratch& scratch) {
  const int64_t rows = a.rows, blocks = blocks_of(a.k), padded = blocks * 32;
  bool quantised = false, floats = false;
  for (int s = 0; s < a.segments; ++s) (is_float(a.segment[s].format) ? floats : quantised) = true;
  const bool copied = floats || a.k != padded || a.norm, many = rows > kFewRows;
  const int64_t groups = (rows + kPanelRows - 1) / kPanelRows;
  float* f = scratch.take<float>(copied ? rows * padded : 0);
  ActBlock* q = scratch.take<ActBlock>(quantised && !many ? rows * blocks : 0);
  Panel* panels = quantised && many ? scratch.take<Panel>(groups * blocks) : nullptr;
  auto group = [&](int64_t g) {
    Scratch local(thread_arena(1));
    const int64_t begin = g * kPanelRows, live = rows - begin < kPanelRows ? rows - begin : kPanelRows;
    ActBlock* to = many ? local.take<ActBlock>(quantised ? live * blocks : 0) : q + begin * blocks;
    for (int64_t r = 0; r < live; ++r) {
      const float* x = a.x + (begin + r) * a.k;
      if (copied) {
        float* y = f + (begin + r) * padded;
        if (a.norm) normalise(x, a.norm, a.eps, a.k, y);
        else memcpy(y, x, static_cast<size_t>(a.k) * 4);
        for (int64_t i = a.k; i < padded; ++i) y[i] = 0.0f;
        x = y;
      }
      if (quantised) quantise(x, blocks, a.centred, to + r * blocks);
    }
    if (quantised && many) {
      constexpr int64_t most = kAtOnce / kPanelRows;
      const int64_t first = g / most * most, stride = groups - first < most ? groups - first : most;
      to_panels(to, live, blocks, panels + first * blocks + (g - first), stride);
    }
  };
  if (rows * a.k < 16384) {
    for (int64_t g = 0; g < groups; ++g) group(g);
  } else {
    const int64_t step = 1024 / a.k + 1;
    parallel(static_cast<int>((groups + step - 1) / step), [&](int i) {
      for (int64_t g = i * step; g < groups && g < (i + 1) * step; ++g) group(g);
    });
  }
  return {rows, blocks, a.centred, q, panels, f};
}

// What is computed at a time is two neighbouring tiles (or a matrix's last one), or the tiles of gate and up that make the
// same outputs.
int64_t units_of(const LinearArgs& a, int s) {
  const int64_t tiles = tiles_of(a.segment[s].n);
  return a.activation ? tiles : (tiles + 1) / 2;
}

// Units [begin, end) of matrix s, or of the pair of gate and up; its outputs start at `column`.
void stripe(const LinearArgs& a, const Inputs& in, int s, int64_t column, int64_t begin, int64_t end, uint8_t* room) {
  const bool gated = a.activation != kNone;
  const Segment &first = a.segment[s], &second = a.segment[gated ? 1 : s];
  const int64_t bytes[2] = {tile_bytes(first.format, in.blocks), tile_bytes(second.format, in.blocks)};
  const int64_t tiles = tiles_of(first.n), stop = column + first.n;
  const bool alike = first.format == second.format;
  alignas(32) float raw[2 * kAtOnce * 8];  // two tiles of one format lie side by side, others one after the other
  float* const other = raw + (alike ? 8 : kAtOnce * 8);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t tile = gated ? unit : 2 * unit, next = gated ? tile : tile + 1;
    const uint8_t *const w0 = first.tiles + tile * bytes[0], *const w1 = second.tiles + next * bytes[1];
    const int64_t step = bytes[0] * (gated ? 1 : 2);
    const bool pair = next < tiles;
    const int64_t stride = alike && pair ? 16 : 8, c = column + 8 * tile;
    for (int64_t row = 0; row < in.rows; row += kAtOnce) {
      const int64_t live = in.rows - row < kAtOnce ? in.rows - row : kAtOnce;
      if (stride == 16) {
        product<2>(first.format, in, row, live, {{w0, w1}, bytes[0], step}, raw, room);
      } else {
        product<1>(first.format, in, row, live, {{w0}, bytes[0], step}, raw, room);
        if (pair) product<1>(second.format, in, row, live, {{w1}, bytes[1], step}, other, room);
      }
      if (gated) finish_gated(a, row, live, raw, other, stride, c);
      else finish(a, row, live, raw, stride, c, stop);
    }
  }
}

}  // namespace

void linear(const LinearArgs& a) {
  Scratch scratch(thread_arena(0));
  const Inputs in = prepare(a, scratch);
  const int matrices = a.activation ? 1 : a.segments;
  int64_t units = 0;
  for (int s = 0; s < matrices; ++s) units += units_of(a, s);
  const int64_t work = 2 * units * in.blocks * (a.rows < 4 ? 4 : a.rows);
  int64_t tasks = work / 2048;  // about 20 us each
  if (tasks > 8 * threads()) tasks = 8 * threads();
  if (tasks > units) tasks = units;
  if (tasks < 1 || threads() == 1) tasks = 1;
  parallel(static_cast<int>(tasks), [&](int task) {
    int64_t begin = units * task / tasks, end = units * (task + 1) / tasks, column = 0;
    Scratch local(thread_arena(1));
    uint8_t* room = local.take<uint8_t>(in.panels ? room_bytes(in.blocks) : 0);
    for (int s = 0; s < matrices; column += a.segment[s++].n) {
      const int64_t n = units_of(a, s);
      if (begin < n && end > 0) stripe(a, in, s, column, begin < 0 ? 0 : begin, end < n ? end : n, room);
      begin -= n;
      end -= n;
    }
  });
}

}  // namespace LLMOS_ISA
}  // namespace llmos
