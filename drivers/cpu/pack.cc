// What: the packer behind pack.h: decodes one block of 32 inputs of 8 rows, then interleaves them.
// Invariant: see pack.h; block structures are those of the GGUF format's ggml types.
// Interface: pack.h.
#include "pack.h"

#include <cmath>
#include <cstring>

#include "threads.h"

namespace llmos {
namespace {

float f16_to_f32(const uint8_t* p) {
  uint16_t h;
  memcpy(&h, p, 2);
  uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023, u;
  if (exponent == 0) {
    float tiny = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -tiny : tiny;
  }
  u = sign | ((exponent == 31 ? 255 : exponent + 112) << 23) | (fraction << 13);
  float f;
  memcpy(&f, &u, 4);
  return f;
}

// Round to nearest even; overflow becomes infinity.
uint16_t f32_to_f16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000);
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00);
  if (u >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00);
  if (u < 0x38800000u) {  // subnormal: count in units of 2^-24
    float a;
    memcpy(&a, &u, 4);
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(a * 16777216.0f)));
  }
  return static_cast<uint16_t>(sign | ((u - 0x38000000u + 0xfffu + ((u >> 13) & 1)) >> 13));
}

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

// The 6-bit scale and minimum j of a Q4_K or Q5_K super-block.
void k_scale(const uint8_t* s, int j, int* scale, int* minimum) {
  if (j < 4) {
    *scale = s[j] & 63;
    *minimum = s[j + 4] & 63;
  } else {
    *scale = (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
    *minimum = (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
  }
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
    case kSrcQ4_1: case kSrcQ4_K: return kQ4M;
    case kSrcQ5_0: return kQ5;
    case kSrcQ5_1: case kSrcQ5_K: return kQ5M;
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
  Block block;
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

inline uint32_t word(const uint8_t* p) {
  uint32_t u;
  memcpy(&u, p, 4);
  return u;
}

// Interleaves one block of eight rows.
void write_block(int format, const Block rows[8], float inverse_unit, uint8_t* out) {
  auto* vectors = reinterpret_cast<uint32_t*>(out);
  if (format == kQ8) {
    for (int j = 0; j < 8; ++j)
      for (int r = 0; r < 8; ++r) vectors[8 * j + r] = word(rows[r].code + 4 * j);
  } else {
    for (int r = 0; r < 8; ++r) {
      const uint8_t* c = rows[r].code;
      for (int j = 0; j < 4; ++j)
        vectors[8 * j + r] = (word(c + 4 * j) & 0x0f0f0f0fu) | ((word(c + 4 * j + 16) & 0x0f0f0f0fu) << 4);
      if (format == kQ5 || format == kQ5M) {
        uint32_t bits = 0;
        for (int j = 0; j < 8; ++j) bits |= ((word(c + 4 * j) >> 4) & 0x01010101u) << j;
        vectors[32 + r] = bits;
      } else if (format == kQ6) {
        for (int h = 0; h < 2; ++h) {
          uint32_t bits = 0;
          for (int i = 0; i < 4; ++i) bits |= ((word(c + 16 * h + 4 * i) >> 4) & 0x03030303u) << (2 * i);
          vectors[32 + 8 * h + r] = bits;
        }
      }
    }
  }
  uint16_t s[24];
  int used = 0;
  for (int g = 0; g < scale_groups(format); ++g)
    for (int r = 0; r < 8; ++r) s[used++] = f32_to_f16(rows[r].scale[g] * inverse_unit);
  if (has_minimum(format))
    for (int r = 0; r < 8; ++r) s[used++] = f32_to_f16(rows[r].minimum * inverse_unit);
  memcpy(out + code_bytes(format), s, static_cast<size_t>(used) * 2);
}

// The power of two that brings the largest possible scale of a K-quantised matrix to about 2^14.
float choose_unit(int32_t source, const uint8_t* data, int64_t bytes) {
  if (source != kSrcQ4_K && source != kSrcQ5_K && source != kSrcQ6_K) return 1.0f;
  const SourceType* type = source_type(source);
  float top = 0.0f;
  for (int64_t at = 0; at < bytes; at += type->bytes) {
    if (source == kSrcQ6_K) {
      top = std::fmax(top, std::fabs(f16_to_f32(data + at + 208)) * 128.0f);
    } else {
      top = std::fmax(top, std::fabs(f16_to_f32(data + at)) * 63.0f);
      top = std::fmax(top, std::fabs(f16_to_f32(data + at + 2)) * 63.0f);
    }
  }
  if (!(top > 0.0f) || !std::isfinite(top)) return 1.0f;
  return std::ldexp(1.0f, std::ilogb(top) - 14);
}

void pack_tile(int32_t source, int format, int64_t n, int64_t k, int64_t tile, const uint8_t* data, int64_t row_bytes,
               float inverse_unit, uint8_t* out) {
  Block rows[8];
  memset(rows, 0, sizeof rows);
  const int64_t live = n - 8 * tile < 8 ? n - 8 * tile : 8;
  for (int64_t b = 0; b < blocks_of(k); ++b, out += block_bytes(format)) {
    if (is_float(format) || native_format(source) != format) {
      float w[8][32];
      memset(w, 0, sizeof w);
      for (int64_t r = 0; r < live; ++r) floats_of(source, data + (8 * tile + r) * row_bytes, b, k, w[r]);
      if (format == kQ8) {
        for (int r = 0; r < 8; ++r) to_q8(w[r], &rows[r]);
      } else {
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
        continue;
      }
    } else {
      for (int64_t r = 0; r < live; ++r) decode_any(source, data + (8 * tile + r) * row_bytes, b, &rows[r]);
    }
    write_block(format, rows, inverse_unit, out);
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
  Header header{kMagic, format, n, k, 1.0f, {0}};
  if (native_format(source) == format) header.unit = choose_unit(source, data, bytes);
  memcpy(out, &header, sizeof header);
  const int64_t tiles = tiles_of(n), tile_bytes = blocks_of(k) * block_bytes(format);
  const int64_t tasks = tiles < 64 ? tiles : 64;
  const float inverse = 1.0f / header.unit;
  parallel(static_cast<int>(tasks), [&](int task) {
    for (int64_t t = tiles * task / tasks; t < tiles * (task + 1) / tasks; ++t)
      pack_tile(source, format, n, k, t, data, row_bytes, inverse, out + sizeof header + t * tile_bytes);
  });
  return 0;
}

}  // namespace llmos
