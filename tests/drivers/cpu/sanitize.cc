// What: runs every kernel of every instruction set that this processor has, on buffers of exactly the needed size, for
//     AddressSanitizer and UBSan to watch; also compares rows alone with rows among others.
// Invariant: exits 0 only when no sanitizer spoke and every comparison held.
// Interface: test_sanitizers.py compiles and runs it.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "kernels.h"
#include "pack.h"
#include "threads.h"

namespace llmos {
namespace portable { const Kernels& table(); }
#ifdef LLMOS_HAVE_AVX2
namespace avx2 { const Kernels& table(); }
#endif
#ifdef LLMOS_HAVE_AVX512VNNI
namespace avx512vnni { const Kernels& table(); }
#endif
}  // namespace llmos

using namespace llmos;

namespace {

uint32_t state = 1;
uint32_t random_bits() { return (state = state * 1664525u + 1013904223u) >> 8; }
float random_float() { return (static_cast<float>(random_bits() % 2001) - 1000.0f) * 1e-3f; }

// Heap memory of exactly n elements, so that one element past it is caught.
template <class T>
struct Exact {
  explicit Exact(size_t n) : size(n), data(static_cast<T*>(std::malloc(n * sizeof(T) + (n == 0)))) {}
  ~Exact() { std::free(data); }
  Exact(Exact&& other) noexcept : size(other.size), data(other.data) { other.data = nullptr; }
  size_t size;
  T* data;
};

Exact<float> floats(size_t n) {
  Exact<float> f(n);
  for (size_t i = 0; i < n; ++i) f.data[i] = random_float();
  return f;
}

void check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

constexpr int32_t kSources[] = {kSrcF32, kSrcF16, kSrcQ4_0, kSrcQ4_1, kSrcQ5_0, kSrcQ5_1,
                                kSrcQ8_0, kSrcQ4_K, kSrcQ5_K, kSrcQ6_K, kSrcBF16};

int native(int32_t source) {
  switch (source) {
    case kSrcQ4_0: return kQ4;
    case kSrcQ4_1: return kQ4M;
    case kSrcQ4_K: return kQ4K;
    case kSrcQ5_0: return kQ5;
    case kSrcQ5_1: return kQ5M;
    case kSrcQ5_K: return kQ5K;
    case kSrcQ6_K: return kQ6;
    case kSrcQ8_0: return kQ8;
    case kSrcBF16: return kBF16;
    default: return kF32;
  }
}

void products(const Kernels& kernels) {
  for (int32_t source : kSources)
    for (int64_t n : {1, 8, 21})
      for (int64_t k : {int64_t{256}, int64_t{512}, is_float(native(source)) ? int64_t{45} : int64_t{768}})
        for (int variant = 0; variant < 3; ++variant) {
          const int format = variant == 0 ? native(source) : variant == 1 ? kF32 : kBF16;
          Exact<uint8_t> raw(static_cast<size_t>(n * source_row_bytes(source, k)));
          for (size_t i = 0; i < raw.size; ++i) raw.data[i] = static_cast<uint8_t>(random_bits());  // NaN scales too
          Exact<uint8_t> packed(static_cast<size_t>(packed_bytes(format, n, k)));
          check(!pack(source, format, n, k, raw.data, static_cast<int64_t>(raw.size), packed.data), "pack");
          check(pack(source, format, n, k, raw.data, static_cast<int64_t>(raw.size) - 1, packed.data) == -2, "short");
          const Segment one{format, n, packed.data + sizeof(Header)};
          const Segment two[] = {one, one};
          for (int64_t rows : {1, 2, 3, 4, 5, 7, 9, 17, 66}) {
            auto x = floats(static_cast<size_t>(rows * k)), norm = floats(static_cast<size_t>(k));
            auto bias = floats(static_cast<size_t>(2 * n));
            for (bool gated : {false, true}) {
              const int64_t width = gated ? n : 2 * n;
              auto residual = floats(static_cast<size_t>(rows * width));
              Exact<float> y(static_cast<size_t>(rows * width));
              LinearArgs a{};
              a.rows = rows;
              a.k = k;
              a.n = width;
              a.x = x.data;
              a.norm = rows % 2 ? norm.data : nullptr;
              a.eps = 1e-6f;
              a.bias = bias.data;
              a.residual = residual.data;
              a.activation = gated ? kSilu : kNone;
              a.segments = 2;
              a.centred = gated != (rows % 2 == 0);
              a.segment = two;
              a.y = y.data;
              kernels.linear(a);
            }
            Exact<int32_t> tokens(static_cast<size_t>(rows));
            for (int64_t r = 0; r < rows; ++r) tokens.data[r] = static_cast<int32_t>(random_bits() % n);
            Exact<float> y(static_cast<size_t>(rows * k));
            kernels.embed({rows, k, tokens.data, one, 2.0f, y.data});
            kernels.rms_norm({rows, k, x.data, norm.data, rows % 2 ? x.data : nullptr, 1e-6f, y.data});
          }
        }
}

void low_ranks(const Kernels& kernels) {
  constexpr int64_t slots = 3, rank = 5, matrices = 2;
  for (bool half : {false, true})
    for (int64_t k : {1, 8, 45, 64})
      for (int64_t rows : {1, 3, 4, 9}) {
        const int64_t width[] = {21, 600}, n = width[0] + width[1], size = half ? 2 : 4;
        auto bytes = [&](int64_t count) {
          Exact<uint8_t> b(static_cast<size_t>(count * size));
          for (size_t i = 0; i < b.size; ++i) b.data[i] = static_cast<uint8_t>(random_bits());
          return b;
        };
        auto a = bytes(slots * matrices * rank * k), b0 = bytes(slots * rank * width[0]), b1 = bytes(slots * rank * width[1]);
        auto x = floats(static_cast<size_t>(rows * k)), norm = floats(static_cast<size_t>(k));
        Exact<int32_t> slot(static_cast<size_t>(rows)), ranks(slots * matrices);
        for (int64_t r = 0; r < rows; ++r) slot.data[r] = static_cast<int32_t>(random_bits() % slots);
        for (int64_t i = 0; i < slots * matrices; ++i) ranks.data[i] = i < matrices ? 0 : static_cast<int32_t>(random_bits() % (rank + 1));
        const void* b[] = {b0.data, b1.data};
        Exact<float> y(static_cast<size_t>(rows * n));
        LowRankArgs args{};
        args.rows = rows;
        args.k = k;
        args.n = n;
        args.rank = rank;
        args.x = x.data;
        args.norm = rows % 2 ? norm.data : nullptr;
        args.eps = 1e-6f;
        args.slot = slot.data;
        args.ranks = ranks.data;
        args.half = half;
        args.a = a.data;
        args.segments = matrices;
        args.b = b;
        args.width = width;
        args.y = y.data;
        kernels.low_rank(args);
      }
}

void attentions(const Kernels& kernels) {
  for (bool half : {false, true})
    for (int64_t h : {8, 40, 64})
      for (int64_t page : {5, 16})
        for (int64_t window : {0, 9})
          for (bool interleaved : {false, true}) {
            const int64_t heads = 6, kv = 2, width = 40, slots = 2, positions = width * page;
            Exact<float> pool(static_cast<size_t>(slots * width * page * kv * 2 * h));
            memset(pool.data, 0, pool.size * 4);
            auto cos = floats(static_cast<size_t>(positions * h / 2)), sin = floats(cos.size), norm = floats(static_cast<size_t>(h));
            Exact<int32_t> table(static_cast<size_t>(slots * width));
            for (size_t i = 0; i < table.size; ++i) table.data[i] = static_cast<int32_t>(table.size - 1 - i);
            for (int64_t rows : {1, 3, 23}) {
              auto qkv = floats(static_cast<size_t>(rows * (heads + 2 * kv) * h));
              Exact<float> out(static_cast<size_t>(rows * heads * h));
              Exact<int32_t> position(static_cast<size_t>(rows)), slot(static_cast<size_t>(rows));
              for (int64_t r = 0; r < rows; ++r) {
                slot.data[r] = r >= rows / 2;
                position.data[r] = static_cast<int32_t>(r >= rows / 2 ? positions - rows + r : r);
              }
              AttentionArgs a{};
              a.rows = rows, a.heads = heads, a.kv_heads = kv, a.head_dim = h, a.rope_dim = h / 2 * 2, a.page = page;
              a.pages = slots * width, a.slots = slots, a.table_width = width, a.max_position = positions;
              a.qkv = qkv.data, a.q_norm = norm.data, a.k_norm = rows == 3 ? norm.data : nullptr;
              a.positions = position.data, a.slot = slot.data, a.table = table.data, a.cos = cos.data, a.sin = sin.data;
              a.eps = 1e-6f, a.scale = 0.1f, a.softcap = rows == 3 ? 20.0f : 0.0f, a.window = window;
              a.interleaved = interleaved, a.half = half, a.pool = pool.data, a.out = out.data;
              kernels.attention(a);
              for (size_t i = 0; i < out.size; ++i) check(std::isfinite(out.data[i]), "attention is finite");
            }
          }
}

void samples(const Kernels& kernels) {
  for (int64_t vocab : {1, 9, 37, 4099})
    for (int trial = 0; trial < 40; ++trial) {
      const int64_t b = 3, top = trial % 7, width = 4;
      auto logits = floats(static_cast<size_t>(b * vocab));
      if (trial % 5 == 0) logits.data[random_bits() % logits.size] = NAN;
      Exact<float> u(b), temperature(b), top_p(b), min_p(b), penalty(b), logprob(b), tops(static_cast<size_t>(b * top));
      Exact<int32_t> top_k(b), recent(b * width), token(b), ids(static_cast<size_t>(b * top));
      Exact<uint32_t> mask(static_cast<size_t>(b * ((vocab + 31) / 32)));
      for (size_t i = 0; i < mask.size; ++i) mask.data[i] = random_bits() * 257;
      for (int i = 0; i < b; ++i) {
        u.data[i] = static_cast<float>(random_bits() % 1000) * 1e-3f;
        temperature.data[i] = static_cast<float>(random_bits() % 3);
        top_p.data[i] = trial % 2 ? 0.7f : 1.0f;
        min_p.data[i] = trial % 3 ? 0.0f : 0.3f;
        penalty.data[i] = trial % 4 ? 1.0f : 1.3f;
        top_k.data[i] = trial % 3 ? 5 : 0;
      }
      for (size_t i = 0; i < recent.size; ++i) recent.data[i] = static_cast<int32_t>(random_bits() % (vocab + 3)) - 1;
      SampleArgs a{};
      a.rows = b, a.vocab = vocab, a.recent_width = width, a.top = top, a.logits = logits.data, a.u = u.data;
      a.temperature = temperature.data, a.top_p = top_p.data, a.min_p = min_p.data, a.penalty = penalty.data;
      a.top_k = top_k.data, a.recent = recent.data, a.mask = trial % 2 ? mask.data : nullptr, a.token = token.data;
      a.top_ids = ids.data, a.logprob = logprob.data, a.top_logprobs = tops.data;
      kernels.sample(a);
      for (int i = 0; i < b; ++i) check(token.data[i] >= -1 && token.data[i] < vocab, "the token is in the vocabulary");
    }
}

}  // namespace

int main() {
  std::vector<const Kernels*> tables = {&portable::table()};
#if defined(__x86_64__)
  __builtin_cpu_init();
#ifdef LLMOS_HAVE_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) tables.push_back(&avx2::table());
#endif
#ifdef LLMOS_HAVE_AVX512VNNI
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl")) tables.push_back(&avx512vnni::table());
#endif
#endif
  for (int n : {1, 3}) {
    set_threads(n);
    for (const Kernels* t : tables) {
      check(self_test(*t).empty(), t->name);
      products(*t);
      low_ranks(*t);
      attentions(*t);
      samples(*t);
      std::printf("%s, %d threads: clean\n", t->name, n);
    }
  }
  return 0;
}
