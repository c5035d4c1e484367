// What: one block of one row from GGUF's order of bits to ours (formats.h), without widening a code to a byte: rows are
//     moved in words, so that packing a model at boot is bound by memory.
// Invariant: codes and scales are moved exactly; nothing is rounded.
// Interface: repack<S>, k_scale.
#pragma once

#include "formats.h"
#include "halves.h"
#include "pack.h"

namespace llmos {

// The 6-bit scale and minimum j of a Q4_K or Q5_K super-block.
inline void k_scale(const uint8_t* s, int j, int* scale, int* minimum) {
  if (j < 4) {
    *scale = s[j] & 63;
    *minimum = s[j + 4] & 63;
  } else {
    *scale = (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
    *minimum = (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
  }
}

// Where row r of a packed block keeps its words and its scales.
struct Lane {
  Place<uint8_t> at;
  int r;

  void word(int vector, uint32_t value) const { memcpy(at.codes + 32 * vector + 4 * r, &value, 4); }
  void half(int which, const uint8_t* f16) const { memcpy(at.scales + 16 * which + 2 * r, f16, 2); }
  void byte(int which, uint8_t value) const { at.scales[8 * which + r] = value; }
  void top(int which, const uint8_t* f16, bool negative = false) const {
    uint8_t* to = at.tops + 16 * which + 2 * r;
    memcpy(to, f16, 2);
    if (negative) to[1] ^= 0x80;
  }
};

// 32 codes, a byte's low nibble each after the shift: k-groups j to the low nibbles of word j, j + 4 to the high ones.
inline void join_nibbles(const uint8_t* q, int shift, const Lane& to) {
  constexpr uint64_t mask = 0x0f0f0f0f0f0f0f0fu;
  for (int i = 0; i < 2; ++i) {
    const uint64_t pair = ((word64(q + 8 * i) >> shift) & mask) | (((word64(q + 16 + 8 * i) >> shift) & mask) << 4);
    to.word(2 * i, static_cast<uint32_t>(pair));
    to.word(2 * i + 1, static_cast<uint32_t>(pair >> 32));
  }
}

// Bit 4j + i of a row's fifth bits becomes bit j of byte i; a byte of them brings two bits to each byte.
struct FifthBits {
  uint32_t of_byte[256];
  constexpr FifthBits() : of_byte() {
    for (uint32_t b = 0; b < 256; ++b)
      for (uint32_t i = 0; i < 4; ++i) of_byte[b] |= (((b >> i) & 1) | (((b >> (i + 4)) & 1) << 1)) << (8 * i);
  }
  constexpr uint32_t operator()(const uint8_t* p) const {
    return of_byte[p[0]] | of_byte[p[1]] << 2 | of_byte[p[2]] << 4 | of_byte[p[3]] << 6;
  }
};
inline constexpr FifthBits kFifthBits;

// Block b of a row that starts at `row`.
template <int S>
inline void repack(const uint8_t* row, int64_t b, const Lane& to) {
  if constexpr (S == kSrcQ8_0) {
    const uint8_t* p = row + b * 34;
    for (int j = 0; j < 8; ++j) to.word(j, word(p + 2 + 4 * j));
    to.half(0, p);
  } else if constexpr (S == kSrcQ4_0 || S == kSrcQ4_1 || S == kSrcQ5_0 || S == kSrcQ5_1) {
    constexpr bool five = S == kSrcQ5_0 || S == kSrcQ5_1, minimum = S == kSrcQ4_1 || S == kSrcQ5_1;
    constexpr int head = minimum ? 4 : 2, codes = head + (five ? 4 : 0);
    const uint8_t* p = row + b * (codes + 16);
    for (int j = 0; j < 4; ++j) to.word(j, word(p + codes + 4 * j));  // their nibbles lie as ours do
    if (five) to.word(4, kFifthBits(p + head));
    to.half(0, p);
    if (minimum) to.half(1, p + 2);
  } else if constexpr (S == kSrcQ4_K || S == kSrcQ5_K) {
    constexpr bool five = S == kSrcQ5_K;
    const uint8_t* p = row + (b / 8) * (five ? 176 : 144);
    const int j = static_cast<int>(b % 8);
    int scale, minimum;
    k_scale(p + 4, j, &scale, &minimum);
    to.byte(0, static_cast<uint8_t>(scale));
    to.byte(1, static_cast<uint8_t>(minimum));
    if (j == 0) {
      to.top(0, p);
      to.top(1, p + 2, true);
    }
    join_nibbles(p + (five ? 48 : 16) + 32 * (j / 2), 4 * (j & 1), to);
    if (five) {
      uint64_t bits = 0;  // k-groups i and i + 1 in the two halves
      for (int i = 0; i < 8; i += 2) bits |= ((word64(p + 16 + 4 * i) >> j) & 0x0101010101010101u) << i;
      to.word(4, static_cast<uint32_t>(bits) | static_cast<uint32_t>(bits >> 32) << 1);
    }
  } else if constexpr (S == kSrcQ6_K) {
    const uint8_t* p = row + (b / 8) * 210;
    const int j = static_cast<int>(b % 8), part = j % 4;
    join_nibbles(p + 64 * (j / 4) + 32 * (part & 1), 4 * (part >> 1), to);
    for (int h = 0; h < 2; ++h) {
      const uint8_t* high = p + 128 + 32 * (j / 4) + 16 * h;
      constexpr uint64_t mask = 0x0303030303030303u;
      const uint64_t bits = ((word64(high) >> (2 * part)) & mask) | ((word64(high + 8) >> (2 * part)) & mask) << 4;
      to.word(4 + h, static_cast<uint32_t>(bits) | static_cast<uint32_t>(bits >> 32) << 2);
      to.byte(h, p[192 + 2 * j + h]);
    }
    if (j == 0) to.top(0, p + 208);
  }
}

}  // namespace llmos
