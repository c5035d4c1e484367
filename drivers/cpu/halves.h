// What: f16 to f32 and back, and words of bytes, for code that every processor runs.
// Invariant: every f16 is exact in f32; back, rounding is to nearest even and overflow becomes infinity.
// Interface: f16_to_f32, f32_to_f16; word, word64.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace llmos {

inline float f16_to_f32(const uint8_t* p) {
  uint16_t h;
  memcpy(&h, p, 2);
  uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023, u;
  if (exponent == 0) {
    float tiny = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -tiny : tiny;
  }
  u = sign | ((exponent == 31 ? 255 : exponent + 112) << 23) | (fraction << 13);
  float f;
  memcpy(&f, &u, 4);
  return f;
}

inline uint16_t f32_to_f16(float f) {
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

inline uint32_t word(const uint8_t* p) {
  uint32_t u;
  memcpy(&u, p, 4);
  return u;
}

inline uint64_t word64(const uint8_t* p) {
  uint64_t u;
  memcpy(&u, p, 8);
  return u;
}

}  // namespace llmos
