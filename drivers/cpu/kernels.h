// What: the interface between the instruction-set independent callers (XLA handlers, packer, tests) and the kernels.
// Invariant: plain structs of pointers and sizes, all arrays row-major and dense; `rows` leading rows are computed, the
//     others are neither read nor written. A row's result depends on that row alone (see the row contract in linear.cc).
// Interface: Kernels, one table an instruction set; kernels() is the table chosen for this machine.
#pragma once

#include <cstdint>

#include "formats.h"

namespace llmos {

enum Activation : int32_t { kNone = 0, kSilu, kGeluTanh };

struct Segment {  // one packed matrix, written to its own range of output columns
  int32_t format;
  int64_t n;
  const uint8_t* tiles;
};

struct LinearArgs {
  int64_t rows, k, n;            // n: width of y
  const float* x;                // [rows, k]
  const float* norm;             // [k] or null
  float eps;
  const float* bias;             // [sum of segments' n] or null
  const float* residual;         // [rows, n] or null
  const float* delta;            // [rows, sum of segments' n] or null: added to the products before everything else
  bool centred;                  // quantise activations about the middle of a block's range
  int32_t activation;            // not kNone: exactly two segments of n outputs, gate and up
  int32_t segments;
  const Segment* segment;
  float* y;                      // [rows, n]
};

struct LowRankArgs {
  int64_t rows, k, n, rank;      // n: sum of widths; rank: that there is room for
  const float* x;                // [rows, k]
  const float* norm;             // [k] or null
  float eps;
  const int32_t* slot;           // [rows], whose adapter
  const int32_t* ranks;          // [slots, segments], 0 where there is nothing to add
  bool half;                     // a and b hold bf16 bits, else f32
  const void* a;                 // [slots, segments, rank, k]
  int32_t segments;
  const void* const* b;          // a matrix each: [slots, rank, width]
  const int64_t* width;          // [segments]
  float* y;                      // [rows, n]
};

struct AttentionArgs {
  int64_t rows, heads, kv_heads, head_dim, rope_dim, page, pages, slots, table_width, max_position;
  const float* qkv;              // [rows, (heads + 2 kv_heads) head_dim]
  const float *q_norm, *k_norm;  // [head_dim] or null
  const int32_t *positions, *slot, *table;
  const float *cos, *sin;        // [max_position, rope_dim / 2]
  float eps, scale, softcap;
  int64_t window;
  bool interleaved, half;        // half: the pool holds bf16 bits, else f32
  void* pool;                    // [pages, page, kv_heads, 2, head_dim]
  float* out;                    // [rows, heads head_dim]
};

struct NormArgs {
  int64_t rows, d;
  const float *x, *weight, *residual;
  float eps;
  float* y;
};

struct EmbedArgs {
  int64_t rows, k;
  const int32_t* tokens;
  Segment table;
  float scale;
  float* y;
};

struct SampleArgs {
  int64_t rows, vocab, recent_width, top;
  const float *logits, *u, *temperature, *top_p, *min_p, *penalty;
  const int32_t *top_k, *recent, *forced;  // forced may be null
  const uint32_t* mask;                    // may be null
  int32_t *token, *top_ids;
  float *logprob, *top_logprobs;
};

struct Kernels {
  const char* name;
  void (*linear)(const LinearArgs&);
  void (*low_rank)(const LowRankArgs&);
  void (*attention)(const AttentionArgs&);
  void (*rms_norm)(const NormArgs&);
  void (*embed)(const EmbedArgs&);
  void (*sample)(const SampleArgs&);
};

const Kernels& kernels();

}  // namespace llmos
