// What: the packer behind pack.h: moves the blocks of quantised tensors (repack.h), or goes through floats where a tensor
//     holds floats or shall become another format.
// Invariant: see pack.h; block structures are those of the GGUF format's ggml types.
// Interface: pack.h.
#include "pack.h"

#include <cmath>
#include <cstring>

#include "repack.h"
#include "threads.h"

namespace llmos {
namespace {

struct Block {  // 32 inputs of one row
  alignas(32) uint8_t code[32];
  float scale[2], minimum;
};

struct SourceType {
  int32_t id, elements, bytes;
};
constexpr SourceType kSources[] = {
    {kSrcF32, 1, 4},     {kSrcF16, 1, 2},      {kSrcBF16, 1, 2},     {kSrcQ4_0, 32, 18},
    {kSrcQ4_1, 32, 20},  {kSrcQ5_0, 32, 22},   {kSrcQ5_1, 32, 24},   {kSrcQ8_0, 32, 34},
    {kSrcQ4_K, 256, 144}, {kSrcQ5_K, 256, 176}, {kSrcQ6_K, 256, 210},
};

const SourceType* source_type(int32_t id) {
  for (const SourceType& s : kSources)
    if (s.id == id) return &s;
  return nullptr;
}

inline void nibbles(const uint8_t* p, uint8_t* code) {
  for (int i = 0; i < 16; ++i) {
    code[i] = p[i] & 15;
    code[i + 16] = static_cast<uint8_t>(p[i] >> 4);
  }
}

inline void fifth_bits(const uint8_t* p, uint8_t* code) {
  uint32_t bits;
  memcpy(&bits, p, 4);
  for (int i = 0; i < 32; ++i) code[i] = static_cast<uint8_t>(code[i] | (((bits >> i) & 1) << 4));
}

// Block b of a row that starts at `row`; codes as the format holds them.
template <int S>
void decode(const uint8_t* row, int64_t b, Block* out) {
  if constexpr (S == kSrcQ4_0 || S == kSrcQ5_0) {
    const uint8_t* p = row + b * (S == kSrcQ4_0 ? 18 : 22);
    out->scale[0] = f16_to_f32(p);
    nibbles(p + (S == kSrcQ4_0 ? 2 : 6), out->code);
    if (S == kSrcQ5_0) fifth_bits(p + 2, out->code);
  } else if constexpr (S == kSrcQ4_1 || S == kSrcQ5_1) {
    const uint8_t* p = row + b * (S == kSrcQ4_1 ? 20 : 24);
    out->scale[0] = f16_to_f32(p);
    out->minimum = f16_to_f32(p + 2);
    nibbles(p + (S == kSrcQ4_1 ? 4 : 8), out->code);
    if (S == kSrcQ5_1) fifth_bits(p + 4, out->code);
  } else if constexpr (S == kSrcQ8_0) {
    const uint8_t* p = row + b * 34;
    out->scale[0] = f16_to_f32(p);
    memcpy(out->code, p + 2, 32);
  } else if constexpr (S == kSrcQ4_K || S == kSrcQ5_K) {
    const uint8_t* p = row + (b / 8) * (S == kSrcQ4_K ? 144 : 176);
    const int j = static_cast<int>(b % 8);
    int scale, minimum;
    k_scale(p + 4, j, &scale, &minimum);
    out->scale[0] = f16_to_f32(p) * static_cast<float>(scale);
    out->minimum = -f16_to_f32(p + 2) * static_cast<float>(minimum);
    const uint8_t* q = p + (S == kSrcQ4_K ? 16 : 48) + 32 * (j / 2);
    const int shift = 4 * (j & 1);
    for (int i = 0; i < 32; ++i) out->code[i] = (q[i] >> shift) & 15;
    if (S == kSrcQ5_K)
      for (int i = 0; i < 32; ++i) out->code[i] = static_cast<uint8_t>(out->code[i] | (((p[16 + i] >> j) & 1) << 4));
  } else if constexpr (S == kSrcQ6_K) {
    const uint8_t* p = row + (b / 8) * 210;
    const int j = static_cast<int>(b % 8), half = j / 4, part = j % 4;
    const uint8_t *low = p + 64 * half + 32 * (part & 1), *high = p + 128 + 32 * half;
    const int shift = 4 * (part >> 1);
    for (int i = 0; i < 32; ++i)
      out->code[i] = static_cast<uint8_t>(((low[i] >> shift) & 15) | (((high[i] >> (2 * part)) & 3) << 4));
    const float d = f16_to_f32(p + 208);
    for (int g = 0; g < 2; ++g)
      out->scale[g] = d * static_cast<float>(static_cast<int8_t>(p[192 + 2 * j + g]));
  }
}

float float_weight(int32_t source, const uint8_t* p, int64_t i) {
  if (source == kSrcF32) {
    float f;
    memcpy(&f, p + 4 * i, 4);
    return f;
  }
  if (source == kSrcF16) return f16_to_f32(p + 2 * i);
  uint16_t h;
  memcpy(&h, p + 2 * i, 2);
  uint32_t u = static_cast<uint32_t>(h) << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

void decode_any(int32_t source, const uint8_t* row, int64_t b, Block* out) {
  switch (source) {
    case kSrcQ4_0: return decode<kSrcQ4_0>(row, b, out);
    case kSrcQ4_1: return decode<kSrcQ4_1>(row, b, out);
    case kSrcQ5_0: return decode<kSrcQ5_0>(row, b, out);
    case kSrcQ5_1: return decode<kSrcQ5_1>(row, b, out);
    case kSrcQ8_0: return decode<kSrcQ8_0>(row, b, out);
    case kSrcQ4_K: return decode<kSrcQ4_K>(row, b, out);
    case kSrcQ5_K: return decode<kSrcQ5_K>(row, b, out);
    case kSrcQ6_K: return decode<kSrcQ6_K>(row, b, out);
  }
}

int native_format(int32_t source) {
  switch (source) {
    case kSrcQ4_0: return kQ4;
    case kSrcQ4_1: return kQ4M;
    case kSrcQ4_K: return kQ4K;
    case kSrcQ5_0: return kQ5;
    case kSrcQ5_1: return kQ5M;
    case kSrcQ5_K: return kQ5K;
    case kSrcQ6_K: return kQ6;
    case kSrcQ8_0: return kQ8;
  }
  return -1;
}

// 32 weights of one row as floats, zero past k.
void floats_of(int32_t source, const uint8_t* row, int64_t b, int64_t k, float* w) {
  const int format = native_format(source);
  if (format < 0) {
    for (int64_t i = 0; i < 32; ++i) w[i] = 32 * b + i < k ? float_weight(source, row, 32 * b + i) : 0.0f;
    return;
  }
  Block block{};
  decode_any(source, row, b, &block);
  for (int i = 0; i < 32; ++i) {
    int code = format == kQ8 ? static_cast<int8_t>(block.code[i]) : block.code[i] - code_offset(format);
    w[i] = block.scale[format == kQ6 ? i / 16 : 0] * static_cast<float>(code);
    if (has_minimum(format)) w[i] += block.minimum;
  }
}

// Symmetric 8-bit blocks from floats, as GGUF's Q8_0 makes them.
void to_q8(const float* w, Block* out) {
  float top = 0.0f;
  for (int i = 0; i < 32; ++i) top = std::fmax(top, std::fabs(w[i]));
  const float inverse = top > 0.0f ? 127.0f / top : 0.0f;
  out->scale[0] = top / 127.0f;
  for (int i = 0; i < 32; ++i) out->code[i] = static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(w[i] * inverse)));
}

// A block of eight rows in a float format, or as 8-bit codes.
void write_floats(int format, const float w[8][32], uint8_t* out) {
  if (format == kQ8) {
    for (int r = 0; r < 8; ++r) {
      Block q{};
      to_q8(w[r], &q);
      const Lane to{place(kQ8, out, 0), r};
      for (int j = 0; j < 8; ++j) to.word(j, word(q.code + 4 * j));
      const uint16_t scale = f32_to_f16(q.scale[0]);
      to.half(0, reinterpret_cast<const uint8_t*>(&scale));
    }
    return;
  }
  for (int i = 0; i < 32; ++i)
    for (int r = 0; r < 8; ++r) {
      uint32_t u;
      memcpy(&u, &w[r][i], 4);
      if (format == kF32) {
        memcpy(out + 4 * (8 * i + r), &u, 4);
      } else {
        bool nan = (u & 0x7fffffffu) > 0x7f800000u;
        uint16_t h = static_cast<uint16_t>(nan ? (u >> 16) | 0x40 : (u + 0x7fffu + ((u >> 16) & 1)) >> 16);
        memcpy(out + 2 * (8 * i + r), &h, 2);
      }
    }
}

struct Job {
  int32_t source, format;
  int64_t n, k, row_bytes;
};

template <int S>
void repack_tile(const Job& job, int64_t live, const uint8_t* rows, uint8_t* out) {
  const int64_t blocks = blocks_of(job.k);
  if (live < 8) memset(out, 0, static_cast<size_t>(tile_bytes(job.format, blocks)));
  for (int64_t b = 0; b < blocks; ++b)
    for (int r = 0; r < live; ++r) repack<S>(rows + r * job.row_bytes, b, {place(job.format, out, b), r});
}

void pack_tile(const Job& job, int64_t tile, const uint8_t* data, uint8_t* out) {
  const int64_t live = job.n - 8 * tile < 8 ? job.n - 8 * tile : 8;
  const uint8_t* rows = data + 8 * tile * job.row_bytes;
  if (native_format(job.source) == job.format) {
    switch (job.source) {
      case kSrcQ4_0: return repack_tile<kSrcQ4_0>(job, live, rows, out);
      case kSrcQ4_1: return repack_tile<kSrcQ4_1>(job, live, rows, out);
      case kSrcQ5_0: return repack_tile<kSrcQ5_0>(job, live, rows, out);
      case kSrcQ5_1: return repack_tile<kSrcQ5_1>(job, live, rows, out);
      case kSrcQ8_0: return repack_tile<kSrcQ8_0>(job, live, rows, out);
      case kSrcQ4_K: return repack_tile<kSrcQ4_K>(job, live, rows, out);
      case kSrcQ5_K: return repack_tile<kSrcQ5_K>(job, live, rows, out);
      case kSrcQ6_K: return repack_tile<kSrcQ6_K>(job, live, rows, out);
    }
  }
  float w[8][32];
  memset(w, 0, sizeof w);
  for (int64_t b = 0; b < blocks_of(job.k); ++b, out += block_bytes(job.format)) {
    for (int64_t r = 0; r < live; ++r) floats_of(job.source, rows + r * job.row_bytes, b, job.k, w[r]);
    write_floats(job.format, w, out);
  }
}

}  // namespace

int64_t source_row_bytes(int32_t source, int64_t k) {
  const SourceType* type = source_type(source);
  if (!type || k <= 0 || k % type->elements) return -1;
  return k / type->elements * type->bytes;
}

int32_t pack(int32_t source, int32_t format, int64_t n, int64_t k, const uint8_t* data, int64_t bytes, uint8_t* out) {
  const int64_t row_bytes = source_row_bytes(source, k);
  if (row_bytes < 0 || format < 0 || format >= kFormats) return -1;
  if (n <= 0 || bytes != n * row_bytes) return -2;
  if (!is_float(format) && k % 32) return -2;
  if (!is_float(format) && format != kQ8 && native_format(source) != format) return -3;
  const Header header{kMagic, format, n, k, {0}};
  memcpy(out, &header, sizeof header);
  const int64_t tiles = tiles_of(n), step = tile_bytes(format, blocks_of(k));
  const int64_t tasks = tiles < 64 ? tiles : 64;
  const Job job{source, format, n, k, row_bytes};
  parallel(static_cast<int>(tasks), [&](int task) {
    for (int64_t t = tiles * task / tasks; t < tiles * (task + 1) / tasks; ++t)
      pack_tile(job, t, data, out + sizeof header + t * step);
  });
  return 0;
}

}  // namespace llmos
