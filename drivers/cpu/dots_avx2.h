// What: dot products of bytes with AVX2, in sums of 16 bits.
// Invariant: exact, as in simd.h.
// Interface: Acc, Acc8 and their operations.
#pragma once

#include "simd_avx2.h"

namespace llmos {
namespace LLMOS_ISA {

constexpr bool kVnni = false;

// Eight exact sums in 16-bit pairs. Single products of codes below 64 cannot saturate (2*63*127 = 16002), sums wrap
// modulo 2^16 and are right whenever the final (q - offset) sum fits: 16 elements * 16 * 127 = 32512 for 4 and 5 bits
// over a block of 32, 8 * 32 * 127 = 32512 for 6 bits over a group of 16.
struct Acc { __m256i v; };
inline Acc acc_zero() { return {_mm256_setzero_si256()}; }
inline Acc acc_offset(B32 pair, int offset) {
  return {_mm256_mullo_epi16(pair, _mm256_set1_epi16(static_cast<short>(-offset)))};
}
inline Acc acc_start(B32 pair) { return {pair}; }
inline Acc acc_dot(Acc a, B32 w, B32 x) {
  a.v = _mm256_add_epi16(a.v, _mm256_maddubs_epi16(w, x));
  __asm__("" : "+x"(a.v));  // keeps the compiler from regrouping the sum, for which it spills every product
  return a;
}
inline F8 acc_sum(Acc a) { return _mm256_cvtepi32_ps(_mm256_madd_epi16(a.v, _mm256_set1_epi16(1))); }
inline F8 acc_sum_nibbles(Acc high, Acc low) {
  return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(high.v, _mm256_set1_epi16(16)),
                                             _mm256_madd_epi16(low.v, _mm256_set1_epi16(1))));
}
constexpr bool kSplitBytes = true;
// Signed bytes: |w| * sign(w) x, at most 2*128*127 = 32512, widened at once.
struct Acc8 { __m256i v; };
inline Acc8 acc8_start(B32) { return {_mm256_setzero_si256()}; }
inline Acc8 acc8_dot(Acc8 a, B32 w, B32 x) {
  __m256i p = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  a.v = _mm256_add_epi32(a.v, _mm256_madd_epi16(p, _mm256_set1_epi16(1)));
  __asm__("" : "+x"(a.v));
  return a;
}
inline F8 acc8_sum(Acc8 a) { return _mm256_cvtepi32_ps(a.v); }

}  // namespace LLMOS_ISA
}  // namespace llmos
