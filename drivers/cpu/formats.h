// What: how a packed weight matrix lies in memory, the same for every instruction set.
// Invariant: a buffer is a 64-byte Header and then tiles of 8 output rows; a tile is its blocks of 32 inputs in order, so
//     that one tile is one stream of memory. In a block, "k-group" j is inputs 4j..4j+3, and one 32-byte vector holds
//     one k-group of all 8 rows (row r at bytes 4r..4r+3):
//       q4, q4m, q4k  4 vectors: k-group j in the low nibbles, j + 4 in the high nibbles
//       q5, q5m, q5k  the same, then 1 vector whose bit j is the fifth bit of k-group j
//       q6            the same 4, then 2 vectors: bits 2i, 2i+1 of vector h are the top bits of k-group 4h + i
//       q8            8 vectors of signed bytes
//     then 8 f16 scales, and for q4m and q5m 8 f16 minima. A weight is scale * (code - offset) + minimum.
//     Of q4k, q5k and q6, GGUF's K-quants, eight blocks are one super-block: the codes of all eight, then for each 16 bytes
//     (8 scales and 8 minima; q6: 8 signed scales of inputs 0..15, 8 of 16..31), then 8 f16 that the scales are multiplied
//     by, and for q4k and q5k 8 for the minima (negative). As small as in the file: decoding is bound by memory.
//       bf16, f32     for each of 32 inputs 8 values
//     Rows and inputs that pad a tile or block are zero.
// Interface: Format, Header, Place, place, tile_bytes, packed_bytes.
#pragma once

#include <cstdint>

namespace llmos {

enum Format : int32_t { kQ4 = 0, kQ4M, kQ4K, kQ5, kQ5M, kQ5K, kQ6, kQ8, kBF16, kF32, kFormats };

struct Header {
  uint32_t magic;
  int32_t format;
  int64_t n, k;  // outputs, inputs
  uint8_t reserved[40];
};
static_assert(sizeof(Header) == 64, "tiles start on a cache line");

constexpr uint32_t kMagic = 0x4c50534cu;  // changes whenever the layout does
constexpr int kTile = 8, kBlock = 32, kSuper = 8;

constexpr int bits(int f) { return f <= kQ4K ? 4 : f <= kQ5K ? 5 : f == kQ6 ? 6 : f == kQ8 ? 8 : f == kBF16 ? 16 : 32; }
constexpr int64_t code_bytes(int f) { return 32 * bits(f); }
constexpr bool has_minimum(int f) { return f == kQ4M || f == kQ4K || f == kQ5M || f == kQ5K; }
constexpr bool has_super(int f) { return f == kQ4K || f == kQ5K || f == kQ6; }
constexpr bool is_float(int f) { return f >= kBF16; }
constexpr int code_offset(int f) { return f == kQ4 ? 8 : f == kQ5 ? 16 : f == kQ6 ? 32 : 0; }
constexpr int64_t block_bytes(int f) {  // of the formats without super-blocks
  return code_bytes(f) + (is_float(f) ? 0 : has_minimum(f) ? 32 : 16);
}
constexpr int64_t super_bytes(int f) { return kSuper * (code_bytes(f) + 16) + (has_minimum(f) ? 32 : 16); }
constexpr int64_t blocks_of(int64_t k) { return (k + kBlock - 1) / kBlock; }
constexpr int64_t tiles_of(int64_t n) { return (n + kTile - 1) / kTile; }
constexpr int64_t tile_bytes(int f, int64_t blocks) {
  return has_super(f) ? blocks / kSuper * super_bytes(f) : blocks * block_bytes(f);
}
constexpr int64_t packed_bytes(int f, int64_t n, int64_t k) {
  return static_cast<int64_t>(sizeof(Header)) + tiles_of(n) * tile_bytes(f, blocks_of(k));
}

// Where block b of a tile lies: its codes, its scales, and what its super-block's scales are multiplied by.
template <class Byte>
struct Place {
  Byte *codes, *scales, *tops;
};
template <class Byte>
constexpr Place<Byte> place(int f, Byte* tile, int64_t b) {
  if (!has_super(f)) return {tile + b * block_bytes(f), tile + b * block_bytes(f) + code_bytes(f), nullptr};
  Byte *codes = tile + (b >> 3) * super_bytes(f), *scales = codes + kSuper * code_bytes(f);
  return {codes + (b & 7) * code_bytes(f), scales + 16 * (b & 7), scales + 16 * kSuper};
}

}  // namespace llmos
