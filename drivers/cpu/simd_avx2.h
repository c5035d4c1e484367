// What: vectors of AVX2 with FMA and F16C: eight floats, 32 bytes (simd.h).
// Invariant: as in simd.h. Dot products of bytes are in dots_avx2.h and dots_vnni.h.
// Interface: F8, B32.
#pragma once

#include "scalars.h"

namespace llmos {
namespace LLMOS_ISA {

using F8 = __m256;
using B32 = __m256i;

inline F8 load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, F8 v) { _mm256_storeu_ps(p, v); }
inline F8 set1(float f) { return _mm256_set1_ps(f); }
inline F8 zero() { return _mm256_setzero_ps(); }
inline F8 add(F8 a, F8 b) { return _mm256_add_ps(a, b); }
inline F8 sub(F8 a, F8 b) { return _mm256_sub_ps(a, b); }
inline F8 mul(F8 a, F8 b) { return _mm256_mul_ps(a, b); }
inline F8 div(F8 a, F8 b) { return _mm256_div_ps(a, b); }
inline F8 fma(F8 a, F8 b, F8 c) { return _mm256_fmadd_ps(a, b, c); }
inline F8 max(F8 a, F8 b) { return _mm256_max_ps(a, b); }
inline F8 min(F8 a, F8 b) { return _mm256_min_ps(a, b); }
inline F8 abs(F8 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
// Lane-wise a < b ? x : y (false for NaN).
inline F8 select_less(F8 a, F8 b, F8 x, F8 y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
inline F8 round_even(F8 a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// a * 2^n for integral n with a normal result.
inline F8 scale_by_power(F8 a, F8 n) {
  return _mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}
inline F8 load_f16(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
inline F8 load_unsigned(const void* p) {  // eight bytes
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
}
inline F8 load_signed(const void* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
}
inline F8 load_bf16(const void* p) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))), 16));
}
// The largest |v| of 32 numbers, by its bits: a NaN is larger than infinity.
inline float largest(const F8 v[4]) {
  const __m256i number = _mm256_set1_epi32(0x7fffffff);
  __m256i m[4];
  for (int i = 0; i < 4; ++i) m[i] = _mm256_and_si256(_mm256_castps_si256(v[i]), number);
  __m256i t = _mm256_max_epi32(_mm256_max_epi32(m[0], m[1]), _mm256_max_epi32(m[2], m[3]));
  __m128i s = _mm_max_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
  s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1));
  return bits_to_float(static_cast<uint32_t>(_mm_cvtsi128_si32(s)));
}
// v, within [-128, 127], rounded to nearest even.
inline void store_codes(int8_t* p, const F8 v[4]) {
  __m256i a = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
  __m256i b = _mm256_packs_epi32(_mm256_cvtps_epi32(v[2]), _mm256_cvtps_epi32(v[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order));
}
// Four rows of 32 bytes in words of four, row by row within a word's place: out[8][4][4].
inline void interleave_words(const int8_t* const row[4], int8_t (*out)[4][4]) {
  __m256i x[4], y[4];
  for (int r = 0; r < 4; ++r) x[r] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row[r]));
  for (int r = 0; r < 2; ++r) {
    y[2 * r] = _mm256_unpacklo_epi32(x[2 * r], x[2 * r + 1]);
    y[2 * r + 1] = _mm256_unpackhi_epi32(x[2 * r], x[2 * r + 1]);
  }
  for (int j = 0; j < 4; ++j) {  // word j in the low half, j + 4 in the high
    __m256i z = j % 2 ? _mm256_unpackhi_epi64(y[j / 2], y[j / 2 + 2]) : _mm256_unpacklo_epi64(y[j / 2], y[j / 2 + 2]);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out[j]), _mm256_castsi256_si128(z));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out[j + 4]), _mm256_extracti128_si256(z, 1));
  }
}

// Sums of q over inputs {4j, 4j + 1} and {4j + 2, 4j + 3}: of all 32, and of the first 16.
inline void pair_sums(const int8_t* q, int16_t whole[2], int16_t first_half[2]) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)));
  __m128i a = _mm256_castsi256_si128(pairs), b = _mm_add_epi16(a, _mm256_extracti128_si256(pairs, 1));
  __m128i s = _mm_add_epi16(_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b));
  s = _mm_add_epi16(s, _mm_shuffle_epi32(s, 0xb1));
  uint32_t first = static_cast<uint32_t>(_mm_cvtsi128_si32(s)), all = static_cast<uint32_t>(_mm_extract_epi32(s, 2));
  memcpy(first_half, &first, 4);
  memcpy(whole, &all, 4);
}

inline B32 load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store_bytes(void* p, B32 v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
inline B32 mask_bytes(B32 a, int m) { return _mm256_and_si256(a, _mm256_set1_epi8(static_cast<char>(m))); }
inline B32 either(B32 a, B32 b) { return _mm256_or_si256(a, b); }
template <int N>
inline B32 shift_right(B32 a) { return _mm256_srli_epi16(a, N); }  // 16-bit lanes: mask the bytes afterwards
template <int N>
inline B32 shift_left(B32 a) { return _mm256_slli_epi16(a, N); }
inline B32 repeat4(const void* p) { return _mm256_set1_epi32(static_cast<int>(load_u32(p))); }
inline B32 sub_i16(B32 a, B32 b) { return _mm256_sub_epi16(a, b); }
inline B32 flip_sign(B32 a) { return _mm256_xor_si256(a, _mm256_set1_epi8(-128)); }

// The sums of each row's four bytes over n vectors, unsigned and within a byte in sum, or signed.
inline F8 sum_codes(const B32* u, int n) {
  __m256i t = u[0];
  for (int i = 1; i < n; ++i) t = _mm256_add_epi8(t, u[i]);
  t = _mm256_maddubs_epi16(t, _mm256_set1_epi8(1));
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(t, _mm256_set1_epi16(1)));
}
inline F8 sum_signed(const B32* u, int n) {
  __m256i t = _mm256_setzero_si256();
  for (int i = 0; i < n; ++i) t = _mm256_add_epi16(t, _mm256_maddubs_epi16(_mm256_set1_epi8(1), u[i]));
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(t, _mm256_set1_epi16(1)));
}

inline float sum_lanes(F8 v) {
  __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps(a, a, 1)));
}
inline float max_lanes(F8 v) {
  __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
}
// Bit i set where lane i of a is less than lane i of b.
inline int mask_less(F8 a, F8 b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
// Lane-wise bit i of bits ? x : y.
inline F8 select_bits(int bits, F8 x, F8 y) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  __m256i on = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), lane), lane);
  return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(on));
}
// Writes the transpose of eight rows of eight: out[c * stride + r] = rows[r][c].
inline void transpose8(const F8 rows[8], float* out, ptrdiff_t stride) {
  __m256 t[8], s[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    s[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    s[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    s[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    s[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    store(out + i * stride, _mm256_permute2f128_ps(s[i], s[i + 4], 0x20));
    store(out + (i + 4) * stride, _mm256_permute2f128_ps(s[i], s[i + 4], 0x31));
  }
}
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
inline void prefetch_far(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }  // into L2
// The compiler may not move memory operations across: sums that live in L1 stay there, where it would spill them.
inline void keep_order() { __asm__ volatile("" ::: "memory"); }

}  // namespace LLMOS_ISA
}  // namespace llmos
