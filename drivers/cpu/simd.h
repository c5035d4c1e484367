// What: the small set of 8-lane float and 32-byte integer vector operations that the kernels are written in.
// Invariant: one source, three meanings (portable, AVX2, AVX-512 VNNI); integer operations agree bit for bit on all of
//     them, float operations do where the machine has fused multiply-add (else the portable path is a numeric mode of
//     its own). Nothing here calls a function template of the standard library, so that no code compiled for a newer
//     instruction set can be linked into the path of an older one.
// Interface: F8 (8 x f32), B32 (32 bytes), Acc (exact dot products of 8 output rows); LLMOS_ISA names the namespace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifndef LLMOS_ISA
#define LLMOS_ISA portable
#endif

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define LLMOS_AVX2 1
#include <immintrin.h>
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define LLMOS_VNNI 1
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own header's undefined vectors
#endif
#endif
#endif

// The inner loops are unrolled and inlined by force where a vector is one register, not where it is itself a loop.
#if LLMOS_AVX2
#define LLMOS_INLINE __attribute__((always_inline)) inline
#define LLMOS_UNROLL _Pragma("GCC unroll 8")
#else
#define LLMOS_INLINE inline
#define LLMOS_UNROLL
#endif

namespace llmos {
namespace LLMOS_ISA {

#if LLMOS_VNNI
constexpr bool kVnni = true;  // four products of bytes and their sum are one instruction, and there are 32 registers
#else
constexpr bool kVnni = false;
#endif

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

#if LLMOS_AVX2

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

#if LLMOS_VNNI
// Eight exact sums: vpdpbusd accumulates four u8 x s8 products straight into 32 bits.
struct Acc { __m256i v; };
inline Acc acc_zero() { return {_mm256_setzero_si256()}; }
inline Acc acc_offset(B32 pair, int offset) {
  return {_mm256_madd_epi16(pair, _mm256_set1_epi16(static_cast<short>(-offset)))};
}
inline Acc acc_start(B32 pair) { return {_mm256_madd_epi16(pair, _mm256_set1_epi16(1))}; }
inline Acc acc_dot(Acc a, B32 w, B32 x) { return {_mm256_dpbusd_epi32(a.v, w, x)}; }
inline F8 acc_sum(Acc a) { return _mm256_cvtepi32_ps(a.v); }
inline F8 acc_sum_nibbles(Acc high, Acc low) {
  return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32(high.v, 4), low.v));
}
constexpr bool kSplitBytes = false;
struct Acc8 { __m256i v; };
inline Acc8 acc8_start(B32 pair) {  // -128 * sum of the block's activations: weights become w + 128
  return {_mm256_madd_epi16(pair, _mm256_set1_epi16(-128))};
}
inline Acc8 acc8_dot(Acc8 a, B32 w, B32 x) {
  return {_mm256_dpbusd_epi32(a.v, _mm256_xor_si256(w, _mm256_set1_epi8(-128)), x)};
}
inline F8 acc8_sum(Acc8 a) { return _mm256_cvtepi32_ps(a.v); }

// The same for 16 rows: what the products of two tiles side by side need.
using F16 = __m512;
using B64 = __m512i;
inline void store(float* p, F16 v) { _mm512_storeu_ps(p, v); }
inline F16 add(F16 a, F16 b) { return _mm512_add_ps(a, b); }
inline F16 sub(F16 a, F16 b) { return _mm512_sub_ps(a, b); }
inline F16 mul(F16 a, F16 b) { return _mm512_mul_ps(a, b); }
inline F16 fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }
inline F16 join(F8 low, F8 high) { return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1); }
inline B64 join(B32 low, B32 high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }
inline B64 mask_bytes(B64 a, int m) { return _mm512_and_si512(a, _mm512_set1_epi8(static_cast<char>(m))); }
inline B64 either(B64 a, B64 b) { return _mm512_or_si512(a, b); }
template <int N>
inline B64 shift_right(B64 a) { return _mm512_srli_epi16(a, N); }
template <int N>
inline B64 shift_left(B64 a) { return _mm512_slli_epi16(a, N); }
inline B64 sub_i16(B64 a, B64 b) { return _mm512_sub_epi16(a, b); }
inline F16 sum_codes(const B64* u, int n) {
  __m512i t = u[0];
  for (int i = 1; i < n; ++i) t = _mm512_add_epi8(t, u[i]);
  return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), t, _mm512_set1_epi8(1)));
}
inline F16 sum_signed(const B64* u, int n) {
  __m512i t = _mm512_setzero_si512();
  for (int i = 0; i < n; ++i) t = _mm512_dpbusd_epi32(t, _mm512_set1_epi8(1), u[i]);
  return _mm512_cvtepi32_ps(t);
}
struct Acc16 { __m512i v; };
inline Acc16 acc_offset(B64 pair, int offset) {
  return {_mm512_madd_epi16(pair, _mm512_set1_epi16(static_cast<short>(-offset)))};
}
inline Acc16 acc_dot(Acc16 a, B64 w, B64 x) { return {_mm512_dpbusd_epi32(a.v, w, x)}; }
inline F16 acc_sum(Acc16 a) { return _mm512_cvtepi32_ps(a.v); }
inline Acc16 acc8_start(B64 pair) { return acc_offset(pair, 128); }
inline Acc16 acc8_dot(Acc16 a, B64 w, B64 x) {
  return {_mm512_dpbusd_epi32(a.v, _mm512_xor_si512(w, _mm512_set1_epi8(-128)), x)};
}
inline F16 acc8_sum(Acc16 a) { return acc_sum(a); }
#else
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
#endif

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

#else  // portable: plain loops in the same order

struct F8 { float v[8]; };
struct B32 { uint8_t v[32]; };

#define LLMOS_LANES(expr)                  \
  F8 r;                                    \
  for (int i = 0; i < 8; ++i) r.v[i] = (expr); \
  return r;

inline F8 load(const float* p) { LLMOS_LANES(p[i]) }
inline void store(float* p, F8 a) { memcpy(p, a.v, sizeof a.v); }
inline F8 set1(float f) { LLMOS_LANES(f) }
inline F8 zero() { return set1(0.0f); }
inline F8 add(F8 a, F8 b) { LLMOS_LANES(a.v[i] + b.v[i]) }
inline F8 sub(F8 a, F8 b) { LLMOS_LANES(a.v[i] - b.v[i]) }
inline F8 mul(F8 a, F8 b) { LLMOS_LANES(a.v[i] * b.v[i]) }
inline F8 div(F8 a, F8 b) { LLMOS_LANES(a.v[i] / b.v[i]) }
#ifdef __FP_FAST_FMAF
inline F8 fma(F8 a, F8 b, F8 c) { LLMOS_LANES(__builtin_fmaf(a.v[i], b.v[i], c.v[i])) }
#else
inline F8 fma(F8 a, F8 b, F8 c) { LLMOS_LANES(a.v[i] * b.v[i] + c.v[i]) }
#endif
inline F8 max(F8 a, F8 b) { LLMOS_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]) }
inline F8 min(F8 a, F8 b) { LLMOS_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]) }
inline F8 abs(F8 a) { LLMOS_LANES(bits_to_float(float_to_bits(a.v[i]) & 0x7fffffffu)) }
inline F8 select_less(F8 a, F8 b, F8 x, F8 y) { LLMOS_LANES(a.v[i] < b.v[i] ? x.v[i] : y.v[i]) }
inline F8 round_even(F8 a) { LLMOS_LANES(__builtin_rintf(a.v[i])) }
inline F8 scale_by_power(F8 a, F8 n) {
  LLMOS_LANES(n.v[i] == n.v[i] ? bits_to_float(float_to_bits(a.v[i]) +
                                               (static_cast<uint32_t>(static_cast<int32_t>(n.v[i])) << 23))
                               : n.v[i])
}
inline float f16_to_float(uint16_t h) {
  uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
  if (exponent == 31) return bits_to_float(sign | 0x7f800000u | (fraction << 13));
  if (exponent) return bits_to_float(sign | ((exponent + 112) << 23) | (fraction << 13));
  float tiny = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // subnormal: fraction * 2^-24
  return sign ? -tiny : tiny;
}
inline F8 load_f16(const void* p) {
  uint16_t h[8];
  memcpy(h, p, sizeof h);
  LLMOS_LANES(f16_to_float(h[i]))
}
inline F8 load_unsigned(const void* p) {
  const uint8_t* b = static_cast<const uint8_t*>(p);
  LLMOS_LANES(static_cast<float>(b[i]))
}
inline F8 load_signed(const void* p) {
  const int8_t* b = static_cast<const int8_t*>(p);
  LLMOS_LANES(static_cast<float>(b[i]))
}
inline F8 load_bf16(const void* p) {
  uint16_t h[8];
  memcpy(h, p, sizeof h);
  LLMOS_LANES(bf16_to_float(h[i]))
}
inline float largest(const F8 v[4]) {
  uint32_t m = 0;
  for (int i = 0; i < 32; ++i) {
    const uint32_t u = float_to_bits(v[i / 8].v[i % 8]) & 0x7fffffffu;
    m = u > m ? u : m;
  }
  return bits_to_float(m);
}
inline void store_codes(int8_t* p, const F8 v[4]) {
  for (int i = 0; i < 32; ++i) p[i] = static_cast<int8_t>(__builtin_rintf(v[i / 8].v[i % 8]));
}
inline void interleave_words(const int8_t* const row[4], int8_t (*out)[4][4]) {
  for (int j = 0; j < 8; ++j)
    for (int r = 0; r < 4; ++r) memcpy(out[j][r], row[r] + 4 * j, 4);
}

inline void pair_sums(const int8_t* q, int16_t whole[2], int16_t first_half[2]) {
  int s[2][2] = {{0, 0}, {0, 0}};
  for (int i = 0; i < 32; ++i) s[i / 16][(i >> 1) & 1] += q[i];
  for (int p = 0; p < 2; ++p) {
    whole[p] = static_cast<int16_t>(s[0][p] + s[1][p]);
    first_half[p] = static_cast<int16_t>(s[0][p]);
  }
}
inline B32 load_bytes(const void* p) {
  B32 r;
  memcpy(r.v, p, 32);
  return r;
}
inline void store_bytes(void* p, B32 a) { memcpy(p, a.v, 32); }
inline B32 mask_bytes(B32 a, int m) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] & m);
  return a;
}
inline B32 either(B32 a, B32 b) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] | b.v[i]);
  return a;
}
template <int N>
inline B32 shift_right(B32 a) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] >> N);
  return a;
}
template <int N>
inline B32 shift_left(B32 a) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] << N);
  return a;
}
inline B32 repeat4(const void* p) {
  B32 r;
  for (int i = 0; i < 8; ++i) memcpy(r.v + 4 * i, p, 4);
  return r;
}
inline B32 sub_i16(B32 a, B32 b) {
  int16_t x[16], y[16];
  memcpy(x, a.v, 32);
  memcpy(y, b.v, 32);
  for (int i = 0; i < 16; ++i) x[i] = static_cast<int16_t>(x[i] - y[i]);
  memcpy(a.v, x, 32);
  return a;
}

inline B32 flip_sign(B32 a) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] ^ 128);
  return a;
}

inline F8 sum_codes(const B32* u, int n) {
  int32_t s[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int i = 0; i < n; ++i)
    for (int b = 0; b < 32; ++b) s[b / 4] += u[i].v[b];
  LLMOS_LANES(static_cast<float>(s[i]))
}
inline F8 sum_signed(const B32* u, int n) {
  int32_t s[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int i = 0; i < n; ++i)
    for (int b = 0; b < 32; ++b) s[b / 4] += static_cast<int8_t>(u[i].v[b]);
  LLMOS_LANES(static_cast<float>(s[i]))
}

struct Acc { int32_t v[8]; };
inline Acc acc_zero() { return Acc{{0, 0, 0, 0, 0, 0, 0, 0}}; }
inline Acc acc_offset(B32 pair, int offset) {
  int16_t p[2];
  memcpy(p, pair.v, 4);
  Acc a;
  for (int i = 0; i < 8; ++i) a.v[i] = -offset * (p[0] + p[1]);
  return a;
}
inline Acc acc_dot(Acc a, B32 w, B32 x) {
  for (int i = 0; i < 8; ++i) {
    const uint8_t* u = w.v + 4 * i;
    const uint8_t* s = x.v + 4 * i;
    a.v[i] += u[0] * static_cast<int8_t>(s[0]) + u[1] * static_cast<int8_t>(s[1]) + u[2] * static_cast<int8_t>(s[2]) +
              u[3] * static_cast<int8_t>(s[3]);
  }
  return a;
}
inline Acc acc_start(B32 pair) { return acc_offset(pair, -1); }
inline F8 acc_sum(Acc a) { LLMOS_LANES(static_cast<float>(a.v[i])) }
inline F8 acc_sum_nibbles(Acc high, Acc low) { LLMOS_LANES(static_cast<float>(16 * high.v[i] + low.v[i])) }
constexpr bool kSplitBytes = false;
struct Acc8 { int32_t v[8]; };
inline Acc8 acc8_start(B32) { return Acc8{{0, 0, 0, 0, 0, 0, 0, 0}}; }
inline Acc8 acc8_dot(Acc8 a, B32 w, B32 x) {
  for (int i = 0; i < 32; ++i) a.v[i / 4] += static_cast<int8_t>(w.v[i]) * static_cast<int8_t>(x.v[i]);
  return a;
}
inline F8 acc8_sum(Acc8 a) { LLMOS_LANES(static_cast<float>(a.v[i])) }

inline float sum_lanes(F8 a) {
  float s[4];
  for (int i = 0; i < 4; ++i) s[i] = a.v[i] + a.v[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}
inline float max_lanes(F8 a) {
  float m = a.v[0];
  for (int i = 1; i < 8; ++i) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
inline int mask_less(F8 a, F8 b) {
  int m = 0;
  for (int i = 0; i < 8; ++i) m |= (a.v[i] < b.v[i]) << i;
  return m;
}
inline F8 select_bits(int bits, F8 x, F8 y) {
  for (int i = 0; i < 8; ++i)
    if (!((bits >> i) & 1)) x.v[i] = y.v[i];
  return x;
}
inline void transpose8(const F8 rows[8], float* out, ptrdiff_t stride) {
  for (int c = 0; c < 8; ++c)
    for (int r = 0; r < 8; ++r) out[c * stride + r] = rows[r].v[c];
}
inline void prefetch(const void*) {}
inline void prefetch_far(const void*) {}
inline void keep_order() {}

#undef LLMOS_LANES
#endif

// e^x for x <= 88: 0 below -87, exactly 1 at 0, about 1 ulp between (range reduction by ln 2, degree-6 polynomial).
inline F8 exp(F8 x) {
  F8 y = min(set1(88.0f), max(set1(-87.0f), x));  // in this order a NaN stays a NaN
  F8 n = round_even(mul(y, set1(1.44269504088896341f)));
  F8 r = fma(n, set1(-0.693359375f), y);
  r = fma(n, set1(2.12194440e-4f), r);
  F8 p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(mul(p, r), r, r), set1(1.0f));
  return select_less(x, set1(-87.0f), zero(), scale_by_power(p, n));
}

}  // namespace LLMOS_ISA
}  // namespace llmos
