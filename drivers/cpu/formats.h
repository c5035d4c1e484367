// What: how a packed weight matrix lies in memory, the same for every instruction set.
// Invariant: a buffer is a 64-byte Header and then tiles of 8 output rows; a tile is its blocks of 32 inputs in order, so
//     that one tile is one stream of memory. In a block, "k-group" j is inputs 4j..4j+3, and one 32-byte vector holds
//     one k-group of all 8 rows (row r at bytes 4r..4r+3):
//       q4, q4m  4 vectors: k-group j in the low nibbles, j + 4 in the high nibbles
//       q5, q5m  the same, then 1 vector whose bit j is the fifth bit of k-group j
//       q6       the same 4, then 2 vectors: bits 2i, 2i+1 of vector h are the top bits of k-group 4h + i
//       q8       8 vectors of signed bytes
//     then 8 f16 scales (q6: twice, for inputs 0..15 and 16..31), then for q4m and q5m 8 f16 minima (added).
//     A weight is unit * (scale * (code - offset) + minimum); unit is a power of two that keeps f16 in its normal range.
//       bf16, f32  for each of 32 inputs 8 values
//     Rows and inputs that pad a tile or block are zero.
// Interface: Format, Header, block_bytes, packed_bytes.
#pragma once

#include <cstdint>

namespace llmos {

enum Format : int32_t { kQ4 = 0, kQ4M, kQ5, kQ5M, kQ6, kQ8, kBF16, kF32, kFormats };

struct Header {
  uint32_t magic;
  int32_t format;
  int64_t n, k;  // outputs, inputs
  float unit;
  uint8_t reserved[36];
};
static_assert(sizeof(Header) == 64, "tiles start on a cache line");

constexpr uint32_t kMagic = 0x4b50534cu;  // changes whenever the layout does
constexpr int kTile = 8, kBlock = 32;

constexpr int64_t code_bytes(int f) {
  return f <= kQ4M ? 128 : f <= kQ5M ? 160 : f == kQ6 ? 192 : f == kQ8 ? 256 : f == kBF16 ? 512 : 1024;
}
constexpr bool has_minimum(int f) { return f == kQ4M || f == kQ5M; }
constexpr bool is_float(int f) { return f >= kBF16; }
constexpr int scale_groups(int f) { return is_float(f) ? 0 : f == kQ6 ? 2 : 1; }
constexpr int code_offset(int f) { return f == kQ4 ? 8 : f == kQ5 ? 16 : f == kQ6 ? 32 : 0; }
constexpr int64_t block_bytes(int f) {
  return code_bytes(f) + 16 * scale_groups(f) + (has_minimum(f) ? 16 : 0);
}
constexpr int64_t blocks_of(int64_t k) { return (k + kBlock - 1) / kBlock; }
constexpr int64_t tiles_of(int64_t n) { return (n + kTile - 1) / kTile; }
constexpr int64_t packed_bytes(int f, int64_t n, int64_t k) {
  return static_cast<int64_t>(sizeof(Header)) + tiles_of(n) * blocks_of(k) * block_bytes(f);
}

}  // namespace llmos
