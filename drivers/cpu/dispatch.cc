// What: chooses the instruction set for this machine and checks the choice before it is used.
// Invariant: a set is used only when the processor has it and its kernels agree with the portable ones on a small random
//     problem of every format; otherwise the next lower one is taken and `warning` says so.
// Interface: kernels(), kernels_of(name), dispatch_warning().
#include "dispatch.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "pack.h"

namespace llmos {

namespace portable { const Kernels& table(); }
#ifdef LLMOS_HAVE_AVX2
namespace avx2 { const Kernels& table(); }
#endif
#ifdef LLMOS_HAVE_AVX512VNNI
namespace avx512vnni { const Kernels& table(); }
#endif

namespace {

uint32_t next_random(uint32_t* state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 8;
}

std::vector<float> run_linear(const Kernels& k, int64_t rows, const std::vector<float>& x, const std::vector<Segment>& w,
                              int64_t inputs, bool centred) {
  int64_t n = 0;
  for (const Segment& s : w) n += s.n;
  std::vector<float> y(static_cast<size_t>(rows * n));
  LinearArgs a{};
  a.rows = rows;
  a.k = inputs;
  a.n = n;
  a.x = x.data();
  a.segments = static_cast<int32_t>(w.size());
  a.segment = w.data();
  a.y = y.data();
  a.centred = centred;
  k.linear(a);
  return y;
}

}  // namespace

std::string self_test(const Kernels& kernels) {
  constexpr int64_t inputs = 256, outputs = 13, rows = 6;
  constexpr int32_t sources[] = {kSrcQ4_0, kSrcQ4_1, kSrcQ4_K, kSrcQ5_0, kSrcQ5_1,
                                 kSrcQ5_K, kSrcQ6_K, kSrcQ8_0, kSrcBF16, kSrcF32};
  uint32_t state = 12345;
  std::vector<float> x(rows * inputs);
  for (float& v : x) v = (static_cast<float>(next_random(&state) % 2001) - 1000.0f) * 1e-3f;
  std::vector<std::vector<uint8_t>> buffers;
  std::vector<Segment> segments;
  for (int f = 0; f < kFormats; ++f) {
    const int64_t row_bytes = source_row_bytes(sources[f], inputs);
    std::vector<uint8_t> raw(static_cast<size_t>(row_bytes * outputs));
    for (uint8_t& b : raw) b = static_cast<uint8_t>(next_random(&state));
    if (is_float(f)) {  // random bits would hold NaN
      for (size_t i = 0; i < raw.size(); i += static_cast<size_t>(row_bytes / inputs)) {
        float v = (static_cast<float>(next_random(&state) % 2001) - 1000.0f) * 1e-3f;
        uint8_t bytes[4];
        memcpy(bytes, &v, 4);
        if (f == kF32) memcpy(&raw[i], bytes, 4);
        else memcpy(&raw[i], bytes + 2, 2);
      }
    } else {  // random f16 scales likewise: clear the exponent's top bits
      const int64_t block = has_super(f) ? row_bytes / (inputs / 256) : row_bytes / (inputs / 32);
      for (size_t at = 0; at < raw.size(); at += static_cast<size_t>(block)) {
        if (f == kQ6) raw[at + 209] &= 0x9f;
        else raw[at + 1] &= 0x9f;
        if (has_minimum(f)) raw[at + 3] &= 0x9f;
      }
    }
    std::vector<uint8_t> packed(static_cast<size_t>(packed_bytes(f, outputs, inputs)));
    if (pack(sources[f], f, outputs, inputs, raw.data(), static_cast<int64_t>(raw.size()), packed.data()))
      return "the packer refused its own test data";
    buffers.push_back(std::move(packed));
    segments.push_back({f, outputs, buffers.back().data() + sizeof(Header)});
  }
  for (bool centred : {false, true}) {
    const std::vector<float> wide = run_linear(kernels, rows, x, segments, inputs, centred);
    const std::vector<float> expected = run_linear(portable::table(), rows, x, segments, inputs, centred);
    for (size_t i = 0; i < wide.size(); ++i) {
      const float bound = 1e-4f * (1.0f + std::fabs(expected[i]));
      if (!(std::fabs(wide[i] - expected[i]) <= bound)) return "products differ from the portable kernels";
    }
    for (int64_t r = 0; r < rows; ++r) {  // the row contract: a row alone has the same bits
      const std::vector<float> one(x.begin() + r * inputs, x.begin() + (r + 1) * inputs);
      const std::vector<float> y = run_linear(kernels, 1, one, segments, inputs, centred);
      if (memcmp(y.data(), wide.data() + r * static_cast<int64_t>(y.size()), y.size() * 4))
        return "a row alone differs from the row among others";
    }
  }
  return "";
}

namespace {

struct Choice {
  const Kernels* kernels = &portable::table();
  std::string warning;
  Choice() {
    const char* forced = std::getenv("LLMOS_CPU_ISA");
    std::vector<const Kernels*> order;
#if defined(__x86_64__)
    __builtin_cpu_init();
#ifdef LLMOS_HAVE_AVX512VNNI
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma"))
      order.push_back(&avx512vnni::table());
#endif
#ifdef LLMOS_HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) order.push_back(&avx2::table());
#endif
#endif
    order.push_back(&portable::table());
    for (const Kernels* k : order) {
      if (forced && *forced && std::strcmp(forced, k->name)) continue;
      const std::string fault = self_test(*k);
      if (fault.empty()) {
        kernels = k;
        return;
      }
      warning += std::string(k->name) + ": " + fault + "; ";
    }
  }
};

const Choice& choice() {
  static const Choice c;
  return c;
}

}  // namespace

const Kernels& kernels() { return *choice().kernels; }
const char* dispatch_warning() { return choice().warning.c_str(); }

}  // namespace llmos
