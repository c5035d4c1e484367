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

constexpr int64_t kGroup = 8, kGroupBytes = 256 << 10;

struct Inputs {
  int64_t rows, blocks;
  bool centred;
  const ActBlock* q;   // [rows, blocks], where some segment is quantised and the rows are few
  const Panel* panels; // [ceil(rows / 4), blocks], where they are many; else null
  const float* f;      // [rows, blocks * 32], where some segment is not
};

template <int F, int C>
void widen(const uint8_t* const* w, int64_t blocks, bool centred, uint8_t* to) {
  if constexpr (!is_float(F))
    for (int c = 0; c < C; ++c) widen_tile<F>(w[c], blocks, centred, to + c * widened_bytes(F), C * widened_bytes(F));
}

// raw[live][C * 8]: the products of C tiles with the rows of panel p.
template <int F, int C>
void product(const Inputs& in, int64_t p, int64_t live, const uint8_t* const* w, const uint8_t* widened, float* raw) {
  if constexpr (is_float(F)) {
    const float* x = in.f + p * kPanelRows * in.blocks * 32;
    if (live == 4) return panel_float<F, 4, C>(w, in.blocks, x, raw);
    for (int64_t r = 0; r < live; ++r) panel_float<F, 1, C>(w, in.blocks, x + r * in.blocks * 32, raw + r * C * 8);
  } else if (in.panels) {
    const Panel* x = in.panels + p * in.blocks;
    switch (live) {
      case 1: return panel_many<F, 1, C>(widened, in.blocks, in.centred, x, raw);
      case 2: return panel_many<F, 2, C>(widened, in.blocks, in.centred, x, raw);
      case 3: return panel_many<F, 3, C>(widened, in.blocks, in.centred, x, raw);
      case 4: return panel_many<F, 4, C>(widened, in.blocks, in.centred, x, raw);
    }
  } else {
    for (int c = 0; c < C; ++c) {
      float* y = raw + 8 * c;
      switch (live) {
        case 1: tile_few<F, 1>(w[c], in.blocks, in.centred, in.q, y, C * 8); break;
        case 2: tile_few<F, 2>(w[c], in.blocks, in.centred, in.q, y, C * 8); break;
        case 3: tile_few<F, 3>(w[c], in.blocks, in.centred, in.q, y, C * 8); break;
        case 4: tile_few<F, 4>(w[c], in.blocks, in.centred, in.q, y, C * 8); break;
      }
    }
  }
}

template <int C>
void widen(int format, const uint8_t* const* w, int64_t blocks, bool centred, uint8_t* to) {
  switch (format) {
    case kQ4: return widen<kQ4, C>(w, blocks, centred, to);
    case kQ4M: return widen<kQ4M, C>(w, blocks, centred, to);
    case kQ4K: return widen<kQ4K, C>(w, blocks, centred, to);
    case kQ5: return widen<kQ5, C>(w, blocks, centred, to);
    case kQ5M: return widen<kQ5M, C>(w, blocks, centred, to);
    case kQ5K: return widen<kQ5K, C>(w, blocks, centred, to);
    case kQ6: return widen<kQ6, C>(w, blocks, centred, to);
    case kQ8: return widen<kQ8, C>(w, blocks, centred, to);
    case kBF16: return widen<kBF16, C>(w, blocks, centred, to);
    case kF32: return widen<kF32, C>(w, blocks, centred, to);
  }
}

template <int C>
void product(int format, const Inputs& in, int64_t p, int64_t live, const uint8_t* const* w, const uint8_t* widened,
             float* raw) {
  switch (format) {
    case kQ4: return product<kQ4, C>(in, p, live, w, widened, raw);
    case kQ4M: return product<kQ4M, C>(in, p, live, w, widened, raw);
    case kQ4K: return product<kQ4K, C>(in, p, live, w, widened, raw);
    case kQ5: return product<kQ5, C>(in, p, live, w, widened, raw);
    case kQ5M: return product<kQ5M, C>(in, p, live, w, widened, raw);
    case kQ5K: return product<kQ5K, C>(in, p, live, w, widened, raw);
    case kQ6: return product<kQ6, C>(in, p, live, w, widened, raw);
    case kQ8: return product<kQ8, C>(in, p, live, w, widened, raw);
    case kBF16: return product<kBF16, C>(in, p, live, w, widened, raw);
    case kF32: return product<kF32, C>(in, p, live, w, widened, raw);
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
    if (quantised && many) to_panels(to, live, blocks, panels + g * blocks);
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

// What is computed at a time: two neighbouring tiles (or a matrix's last one), or the tiles of gate and up that make the
// same outputs.
struct Unit {
  const uint8_t* tiles[2];
  int count;
  int64_t column;  // of the first output
};

constexpr int64_t kRaw = 2 * kPanelRows * 8;  // products of one panel and unit

int64_t units_of(const LinearArgs& a, int s) {
  const int64_t tiles = tiles_of(a.segment[s].n);
  return a.activation ? tiles : (tiles + 1) / 2;
}

// Units [begin, end) of matrix s, or of the pair of gate and up; its outputs start at `column`. Where rows are many, a
// group of units is widened so that it stays in L2, and a panel meets the group while it is in L1.
void stripe(const LinearArgs& a, const Inputs& in, int s, int64_t column, int64_t begin, int64_t end, int64_t group,
            uint8_t* widened) {
  const bool gated = a.activation != kNone;
  const Segment &first = a.segment[s], &second = a.segment[gated ? 1 : s];
  const int64_t bytes[2] = {tile_bytes(first.format, in.blocks), tile_bytes(second.format, in.blocks)};
  const int64_t half = in.blocks * kWidened, tiles = tiles_of(first.n), stop = column + first.n;
  const bool alike = first.format == second.format;
  Unit unit[kGroup];
  alignas(32) float raw[kGroup][kRaw];  // two tiles of one format lie side by side, others one after the other
  for (int64_t at = begin; at < end; at += group) {
    const int64_t n = end - at < group ? end - at : group;
    for (int64_t i = 0; i < n; ++i) {
      Unit& u = unit[i];
      const int64_t tile = gated ? at + i : 2 * (at + i), next = gated ? tile : tile + 1;
      u = {{first.tiles + tile * bytes[0], second.tiles + next * bytes[1]}, next < tiles ? 2 : 1, column + 8 * tile};
      if (!in.panels) continue;
      uint8_t* to = widened + i * 2 * half;
      if (alike && u.count == 2) {
        widen<2>(first.format, u.tiles, in.blocks, in.centred, to);
      } else {
        widen<1>(first.format, u.tiles, in.blocks, in.centred, to);
        if (u.count == 2) widen<1>(second.format, u.tiles + 1, in.blocks, in.centred, to + half);
      }
    }
    for (int64_t row = 0; row < in.rows; row += kPanelRows) {
      const int64_t p = row / kPanelRows, live = in.rows - row < kPanelRows ? in.rows - row : kPanelRows;
      for (int64_t i = 0; i < n; ++i) {
        const Unit& u = unit[i];
        const uint8_t* from = widened + i * 2 * half;
        if (alike && u.count == 2) {
          product<2>(first.format, in, p, live, u.tiles, from, raw[i]);
        } else {
          product<1>(first.format, in, p, live, u.tiles, from, raw[i]);
          if (u.count == 2) product<1>(second.format, in, p, live, u.tiles + 1, from + half, raw[i] + kRaw / 2);
        }
      }
      for (int64_t i = 0; i < n; ++i) {
        const Unit& u = unit[i];
        const int64_t stride = alike && u.count == 2 ? 16 : 8;
        if (gated) finish_gated(a, row, live, raw[i], raw[i] + (alike ? 8 : kRaw / 2), stride, u.column);
        else finish(a, row, live, raw[i], stride, u.column, stop);
      }
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
  const int64_t unit_bytes = in.panels ? 2 * in.blocks * kWidened : 0;
  const int64_t fitting = unit_bytes ? kGroupBytes / unit_bytes : kGroup;
  const int64_t group = fitting < 1 ? 1 : fitting < kGroup ? fitting : kGroup;
  parallel(static_cast<int>(tasks), [&](int task) {
    int64_t begin = units * task / tasks, end = units * (task + 1) / tasks, column = 0;
    Scratch local(thread_arena(1));
    uint8_t* widened = local.take<uint8_t>(group * unit_bytes);
    for (int s = 0; s < matrices; column += a.segment[s++].n) {
      const int64_t n = units_of(a, s);
      if (begin < n && end > 0) stripe(a, in, s, column, begin < 0 ? 0 : begin, end < n ? end : n, group, widened);
      begin -= n;
      end -= n;
    }
  });
}

}  // namespace LLMOS_ISA
}  // namespace llmos
