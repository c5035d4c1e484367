// What: single numbers: bits of floats, bfloat16; and the name of the instruction set that is compiled for.
// Invariant: one source for every instruction set.
// Interface: bits_to_float, float_to_bits, bf16_to_float, float_to_bf16, load_u32; LLMOS_ISA names the namespace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifndef LLMOS_ISA
#define LLMOS_ISA portable
#endif

namespace llmos {
namespace LLMOS_ISA {

inline float bits_to_float(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

inline uint32_t float_to_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

inline float bf16_to_float(uint16_t h) { return bits_to_float(static_cast<uint32_t>(h) << 16); }

// Round to nearest even; a NaN stays a NaN.
inline uint16_t float_to_bf16(float f) {
  uint32_t u = float_to_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

inline uint32_t load_u32(const void* p) {
  uint32_t u;
  memcpy(&u, p, 4);
  return u;
}

}  // namespace LLMOS_ISA
}  // namespace llmos
