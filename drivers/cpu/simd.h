// What: the small set of 8-lane float and 32-byte integer vector operations that the kernels are written in.
// Invariant: one source, three meanings (portable, AVX2, AVX-512 VNNI); integer operations agree bit for bit on all of
//     them, float operations do where the machine has fused multiply-add (else the portable path is a numeric mode of
//     its own). Nothing here calls a function template of the standard library, so that no code compiled for a newer
//     instruction set can be linked into the path of an older one.
// Interface: F8 (8 x f32), B32 (32 bytes), Acc (exact dot products of 8 output rows); LLMOS_ISA names the namespace.
#pragma once

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

#if LLMOS_AVX2
#include "simd_avx2.h"
#if LLMOS_VNNI
#include "dots_vnni.h"
#else
#include "dots_avx2.h"
#endif
#else
#include "simd_portable.h"
#endif

namespace llmos {
namespace LLMOS_ISA {

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
