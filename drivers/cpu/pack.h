// What: from the blocks of a GGUF tensor to the packed layout of formats.h.
// Invariant: codes and scales of a format of its own are kept exactly; nothing is read past `bytes`.
// Interface: source_row_bytes, pack; dequantise for the float formats. No function throws.
#pragma once

#include <cstdint>

#include "formats.h"

namespace llmos {

// GGUF's own numbers of its tensor types.
enum Source : int32_t {
  kSrcF32 = 0, kSrcF16 = 1, kSrcQ4_0 = 2, kSrcQ4_1 = 3, kSrcQ5_0 = 6, kSrcQ5_1 = 7, kSrcQ8_0 = 8,
  kSrcQ4_K = 12, kSrcQ5_K = 13, kSrcQ6_K = 14, kSrcBF16 = 30,
};

int64_t source_row_bytes(int32_t source, int64_t k);  // -1: unknown type, or k does not divide into blocks

// 0, or -1 unknown type, -2 the sizes disagree, -3 this source cannot become this format.
int32_t pack(int32_t source, int32_t format, int64_t n, int64_t k, const uint8_t* data, int64_t bytes, uint8_t* out);

}  // namespace llmos
