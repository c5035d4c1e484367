// What: the XLA handlers and the C functions that Python loads: checks every size, then calls a kernel.
// Invariant: a kernel sees only arguments that were checked here; a wrong size, page id, position or token is an
//     InvalidArgument error of the XLA call, never an access out of bounds.
// Interface: llmos_linear, llmos_low_rank, llmos_attention, llmos_rms_norm, llmos_embed, llmos_sample, llmos_empty (XLA FFI handlers);
//     llmos_pack, llmos_packed_bytes, llmos_isa, llmos_warning, llmos_set_threads, llmos_threads, llmos_tune_allocator.
#include <malloc.h>

#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "dispatch.h"
#include "kernels.h"
#include "pack.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace llmos {
namespace {

using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;

ffi::Error bad(const std::string& what) { return ffi::Error::InvalidArgument("llmos cpu: " + what); }

// The body of a handler; running out of scratch memory becomes an error.
template <class F>
ffi::Error guarded(F&& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "llmos cpu: no memory for a kernel's scratch");
  }
}

// The dynamic count of rows, or -1.
int64_t row_count(const S32& rows, int64_t limit) {
  if (rows.element_count() != 1) return -1;
  const int64_t n = rows.typed_data()[0];
  return n >= 0 && n <= limit ? n : -1;
}

// A packed matrix of k inputs, or an error text.
std::string read_segment(const ffi::AnyBuffer& b, int64_t k, Segment* out) {
  if (b.element_type() != ffi::U8 || b.size_bytes() < sizeof(Header)) return "a weight is not a packed matrix";
  Header h;
  memcpy(&h, b.untyped_data(), sizeof h);
  if (h.magic != kMagic || h.format < 0 || h.format >= kFormats || h.n <= 0)
    return "a weight is not a packed matrix of this version";
  if (h.k != k) return "a weight has " + std::to_string(h.k) + " inputs, the activations have " + std::to_string(k);
  if (static_cast<int64_t>(b.size_bytes()) != packed_bytes(h.format, h.n, h.k)) return "a packed weight has a wrong size";
  *out = {h.format, h.n, static_cast<const uint8_t*>(b.untyped_data()) + sizeof h};
  return "";
}

enum Flags { kHasNorm = 1, kHasBias = 2, kHasResidual = 4, kCentred = 8, kHasDelta = 16 };

ffi::Error run_linear(F32 x, S32 rows, ffi::RemainingArgs rest, ffi::Result<F32> y, int32_t flags, int32_t activation,
                      float eps) {
  return guarded([&]() -> ffi::Error {
    if (x.dimensions().size() != 2 || y->dimensions().size() != 2) return bad("linear takes matrices");
    LinearArgs a{};
    a.rows = row_count(rows, x.dimensions()[0]);
    if (a.rows < 0) return bad("rows is not a count within the batch");
    a.k = x.dimensions()[1];
    a.n = y->dimensions()[1];
    if (a.k <= 0 || y->dimensions()[0] != x.dimensions()[0]) return bad("linear: shapes disagree");
    a.x = x.typed_data();
    a.y = y->typed_data();
    a.eps = eps;
    a.activation = activation;
    a.centred = (flags & kCentred) != 0;
    size_t next = 0;
    size_t expected_bias = 0;
    auto vector = [&](size_t* count) -> const float* {
      auto b = rest.get<ffi::AnyBuffer>(next++);
      if (!b.has_value() || b->element_type() != ffi::F32) return nullptr;
      *count = b->element_count();
      return static_cast<const float*>(b->untyped_data());
    };
    size_t count = 0;
    if (flags & kHasNorm) {
      a.norm = vector(&count);
      if (!a.norm || count != static_cast<size_t>(a.k)) return bad("linear: norm is not a vector of the inputs");
    }
    if (flags & kHasBias) {
      a.bias = vector(&expected_bias);
      if (!a.bias) return bad("linear: bias is not a vector");
    }
    if (flags & kHasResidual) {
      a.residual = vector(&count);
      if (!a.residual || count != y->element_count()) return bad("linear: residual has not the output's shape");
    }
    size_t expected_delta = 0;
    if (flags & kHasDelta) {
      a.delta = vector(&expected_delta);
      if (!a.delta) return bad("linear: delta is not of f32");
    }
    Segment segments[16];
    int64_t total = 0;
    for (; next < rest.size(); ++next) {
      if (a.segments == 16) return bad("linear takes at most 16 weights");
      auto b = rest.get<ffi::AnyBuffer>(next);
      if (!b.has_value()) return b.error();
      std::string fault = read_segment(*b, a.k, &segments[a.segments]);
      if (!fault.empty()) return bad(fault);
      total += segments[a.segments++].n;
    }
    a.segment = segments;
    if (a.segments == 0) return bad("linear without a weight");
    if (a.bias && expected_bias != static_cast<size_t>(total)) return bad("linear: bias is not a vector of the outputs");
    if (a.delta && expected_delta != static_cast<size_t>(total * x.dimensions()[0]))
      return bad("linear: delta has not a value an output");
    if (activation < kNone || activation > kGeluTanh) return bad("linear: unknown activation");
    if (activation == kNone ? total != a.n
                            : a.segments != 2 || segments[0].n != segments[1].n || segments[0].n != a.n)
      return bad("linear: the weights' outputs are not the result's columns");
    if (a.rows) kernels().linear(a);
    return ffi::Error::Success();
  });
}

ffi::Error run_low_rank(F32 x, S32 rows, S32 slots, S32 ranks, ffi::AnyBuffer down, F32 norm, ffi::RemainingArgs up,
                        ffi::Result<F32> y, float eps) {
  return guarded([&]() -> ffi::Error {
    const auto d = down.dimensions();
    if (x.dimensions().size() != 2 || y->dimensions().size() != 2 || ranks.dimensions().size() != 2 || d.size() != 4)
      return bad("low_rank: wrong ranks");
    LowRankArgs a{};
    a.rows = row_count(rows, x.dimensions()[0]);
    if (a.rows < 0) return bad("rows is not a count within the batch");
    a.k = x.dimensions()[1];
    a.n = y->dimensions()[1];
    a.segments = static_cast<int32_t>(d[1]);
    a.rank = d[2];
    const int64_t count = d[0];
    if (a.k <= 0 || count <= 0 || a.rank <= 0 || d[3] != a.k || y->dimensions()[0] != x.dimensions()[0])
      return bad("low_rank: shapes disagree");
    if (a.segments < 1 || a.segments > 16 || up.size() != static_cast<size_t>(a.segments))
      return bad("low_rank takes 1 to 16 matrices");
    if (ranks.dimensions()[0] != count || ranks.dimensions()[1] != a.segments)
      return bad("low_rank: ranks are not [slots, matrices]");
    if (slots.element_count() != static_cast<size_t>(x.dimensions()[0])) return bad("low_rank: slots have not a value a row");
    const auto type = down.element_type();
    if (type != ffi::U16 && type != ffi::F32) return bad("low_rank: matrices must be uint16 (bf16 bits) or f32");
    if (norm.element_count() && norm.element_count() != static_cast<size_t>(a.k))
      return bad("low_rank: norm is not a vector of the inputs");
    const void* b[16];
    int64_t width[16], total = 0;
    for (int s = 0; s < a.segments; ++s) {
      auto given = up.get<ffi::AnyBuffer>(static_cast<size_t>(s));
      if (!given.has_value()) return given.error();
      const auto shape = given->dimensions();
      if (given->element_type() != type || shape.size() != 3 || shape[0] != count || shape[1] != a.rank || shape[2] <= 0)
        return bad("low_rank: a matrix is not [slots, rank, outputs]");
      b[s] = given->untyped_data();
      total += width[s] = shape[2];
    }
    if (total != a.n) return bad("low_rank: the matrices' outputs are not the result's columns");
    a.x = x.typed_data();
    a.norm = norm.element_count() ? norm.typed_data() : nullptr;
    a.eps = eps;
    a.slot = slots.typed_data();
    a.ranks = ranks.typed_data();
    a.half = type == ffi::U16;
    a.a = down.untyped_data();
    a.b = b;
    a.width = width;
    a.y = y->typed_data();
    for (int64_t i = 0; i < a.rows; ++i)
      if (a.slot[i] < 0 || a.slot[i] >= count) return bad("adapter " + std::to_string(a.slot[i]) + " is not there");
    for (int64_t i = 0; i < count * a.segments; ++i)
      if (a.ranks[i] < 0 || a.ranks[i] > a.rank) return bad("low_rank: a rank is larger than its matrices");
    if (a.rows) kernels().low_rank(a);
    return ffi::Error::Success();
  });
}

ffi::Error run_attention(F32 qkv, ffi::AnyBuffer pool, S32 positions, S32 slots, S32 table, S32 rows, F32 cos, F32 sin,
                         F32 q_norm, F32 k_norm, ffi::Result<F32> out, ffi::Result<ffi::AnyBuffer> pool_out,
                         int32_t heads, int32_t kv_heads, float scale, float eps, int32_t window, float softcap,
                         int32_t interleaved) {
  return guarded([&]() -> ffi::Error {
    const auto p = pool_out->dimensions();
    if (p.size() != 5 || p[3] != 2) return bad("the pool is not [pages, page, kv heads, 2, head dim]");
    if (qkv.dimensions().size() != 2 || cos.dimensions().size() != 2 || table.dimensions().size() != 2)
      return bad("attention: wrong ranks");
    AttentionArgs a{};
    const int64_t t = qkv.dimensions()[0];
    a.rows = row_count(rows, t);
    if (a.rows < 0) return bad("rows is not a count within the batch");
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.pages = p[0];
    a.page = p[1];
    a.head_dim = p[4];
    a.max_position = cos.dimensions()[0];
    a.rope_dim = 2 * cos.dimensions()[1];
    a.slots = table.dimensions()[0];
    a.table_width = table.dimensions()[1];
    if (heads <= 0 || kv_heads <= 0 || heads % kv_heads || p[2] != kv_heads || a.page <= 0)
      return bad("attention: heads are not a multiple of kv heads, or not the pool's");
    if (a.head_dim % 8 || a.head_dim <= 0 || a.head_dim > 1024) return bad("head dim must be a multiple of 8 up to 1024");
    if (qkv.dimensions()[1] != (heads + 2 * kv_heads) * a.head_dim) return bad("qkv is not (heads + 2 kv heads) x head dim");
    if (out->element_count() != static_cast<size_t>(t * heads * a.head_dim)) return bad("attention: wrong output shape");
    if (a.rope_dim > a.head_dim || sin.element_count() != cos.element_count()) return bad("attention: wrong rope tables");
    if (positions.element_count() != static_cast<size_t>(t) || slots.element_count() != static_cast<size_t>(t))
      return bad("positions and slots must have a value a row");
    auto norm = [&](F32& w, const float** to) {
      if (w.element_count() == static_cast<size_t>(a.head_dim)) *to = w.typed_data();
      return w.element_count() == 0 || *to;
    };
    if (!norm(q_norm, &a.q_norm) || !norm(k_norm, &a.k_norm)) return bad("q_norm and k_norm are vectors of head dim");
    const auto type = pool_out->element_type();
    if (type != ffi::U16 && type != ffi::F32) return bad("the pool must be uint16 (bf16 bits) or f32");
    a.half = type == ffi::U16;
    a.qkv = qkv.typed_data();
    a.positions = positions.typed_data();
    a.slot = slots.typed_data();
    a.table = table.typed_data();
    a.cos = cos.typed_data();
    a.sin = sin.typed_data();
    a.eps = eps;
    a.scale = scale;
    a.softcap = softcap;
    a.window = window;
    a.interleaved = interleaved != 0;
    a.pool = pool_out->untyped_data();
    a.out = out->typed_data();
    if (pool.untyped_data() != a.pool) memcpy(a.pool, pool.untyped_data(), pool.size_bytes());
    // Every page that a row may read or write: the largest position of each slot decides how far its table counts.
    std::vector<int64_t> longest(static_cast<size_t>(a.slots), -1);
    for (int64_t i = 0; i < a.rows; ++i) {
      const int64_t slot = a.slot[i], position = a.positions[i];
      if (slot < 0 || slot >= a.slots) return bad("slot " + std::to_string(slot) + " is not a row of the page table");
      if (position < 0 || position >= a.max_position || position / a.page >= a.table_width)
        return bad("position " + std::to_string(position) + " lies past the rope table or the page table");
      int64_t& top = longest[static_cast<size_t>(slot)];
      if (position > top) top = position;
    }
    for (int64_t s = 0; s < a.slots; ++s)
      for (int64_t i = 0; i * a.page <= longest[static_cast<size_t>(s)]; ++i) {
        const int64_t page = a.table[s * a.table_width + i];
        const bool needed = window <= 0 || page >= 0;  // pages behind a sliding window may have been given back
        if (page >= a.pages || (page < 0 && needed)) return bad("page " + std::to_string(page) + " is not in the pool");
      }
    if (window > 0)
      for (int64_t i = 0; i < a.rows; ++i)
        for (int64_t j = a.positions[i] >= window ? (a.positions[i] - window + 1) / a.page : 0;
             j <= a.positions[i] / a.page; ++j)
          if (a.table[a.slot[i] * a.table_width + j] < 0) return bad("a page within the window is missing");
    if (a.rows) kernels().attention(a);
    return ffi::Error::Success();
  });
}

ffi::Error run_rms_norm(F32 x, F32 weight, F32 residual, S32 rows, ffi::Result<F32> y, float eps) {
  return guarded([&]() -> ffi::Error {
    if (x.dimensions().size() != 2 || y->element_count() != x.element_count()) return bad("rms_norm takes a matrix");
    NormArgs a{};
    a.rows = row_count(rows, x.dimensions()[0]);
    a.d = x.dimensions()[1];
    if (a.rows < 0) return bad("rows is not a count within the batch");
    if (weight.element_count() != static_cast<size_t>(a.d)) return bad("rms_norm: the weight is not a vector of the inputs");
    if (residual.element_count() != 0 && residual.element_count() != x.element_count())
      return bad("rms_norm: residual has not the input's shape");
    a.x = x.typed_data();
    a.weight = weight.typed_data();
    a.residual = residual.element_count() ? residual.typed_data() : nullptr;
    a.eps = eps;
    a.y = y->typed_data();
    kernels().rms_norm(a);
    return ffi::Error::Success();
  });
}

ffi::Error run_embed(S32 tokens, ffi::AnyBuffer table, S32 rows, ffi::Result<F32> y, float scale) {
  return guarded([&]() -> ffi::Error {
    if (y->dimensions().size() != 2) return bad("embed gives a matrix");
    EmbedArgs a{};
    a.rows = row_count(rows, static_cast<int64_t>(tokens.element_count()));
    a.k = y->dimensions()[1];
    if (a.rows < 0 || y->dimensions()[0] != static_cast<int64_t>(tokens.element_count()))
      return bad("rows is not a count within the batch");
    std::string fault = read_segment(table, a.k, &a.table);
    if (!fault.empty()) return bad(fault);
    a.tokens = tokens.typed_data();
    for (int64_t i = 0; i < a.rows; ++i)
      if (a.tokens[i] < 0 || a.tokens[i] >= a.table.n)
        return bad("token " + std::to_string(a.tokens[i]) + " is not in the vocabulary");
    a.scale = scale;
    a.y = y->typed_data();
    kernels().embed(a);
    return ffi::Error::Success();
  });
}

// Memory as it comes: a pool of gigabytes is not written before it is used.
ffi::Error run_empty(ffi::Result<ffi::AnyBuffer>) { return ffi::Error::Success(); }

ffi::Error run_sample(F32 logits, S32 rows, F32 u, F32 temperature, S32 top_k, F32 top_p, F32 min_p, F32 penalty,
                      S32 recent, ffi::Buffer<ffi::U32> mask, S32 forced, ffi::Result<S32> token,
                      ffi::Result<F32> logprob, ffi::Result<S32> top_ids, ffi::Result<F32> top_logprobs) {
  return guarded([&]() -> ffi::Error {
    if (logits.dimensions().size() != 2 || recent.dimensions().size() != 2 || top_ids->dimensions().size() != 2)
      return bad("sample: wrong ranks");
    SampleArgs a{};
    const int64_t b = logits.dimensions()[0];
    const size_t each = static_cast<size_t>(b);
    a.rows = row_count(rows, b);
    a.vocab = logits.dimensions()[1];
    a.recent_width = recent.dimensions()[1];
    a.top = top_ids->dimensions()[1];
    if (a.rows < 0) return bad("rows is not a count within the batch");
    if (a.vocab <= 0 || u.element_count() != each || temperature.element_count() != each ||
        top_k.element_count() != each || top_p.element_count() != each || min_p.element_count() != each ||
        penalty.element_count() != each || recent.dimensions()[0] != b || token->element_count() != each ||
        logprob->element_count() != each || top_ids->dimensions()[0] != b ||
        top_logprobs->element_count() != top_ids->element_count())
      return bad("sample: a parameter has not a value a row");
    if (mask.element_count() && mask.element_count() != each * static_cast<size_t>((a.vocab + 31) / 32))
      return bad("sample: the mask is not [rows, ceil(vocabulary / 32)]");
    if (forced.element_count() && forced.element_count() != each) return bad("sample: forced has not a value a row");
    a.logits = logits.typed_data();
    a.u = u.typed_data();
    a.temperature = temperature.typed_data();
    a.top_k = top_k.typed_data();
    a.top_p = top_p.typed_data();
    a.min_p = min_p.typed_data();
    a.penalty = penalty.typed_data();
    a.recent = recent.typed_data();
    a.mask = mask.element_count() ? mask.typed_data() : nullptr;
    a.forced = forced.element_count() ? forced.typed_data() : nullptr;
    a.token = token->typed_data();
    a.logprob = logprob->typed_data();
    a.top_ids = top_ids->typed_data();
    a.top_logprobs = top_logprobs->typed_data();
    kernels().sample(a);
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace llmos

#define LLMOS_EXPORT extern "C" __attribute__((visibility("default")))

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(llmos_linear, llmos::run_linear,
                              ffi::Ffi::Bind()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::S32>()
                                  .RemainingArgs()
                                  .Ret<llmos::F32>()
                                  .Attr<int32_t>("flags")
                                  .Attr<int32_t>("activation")
                                  .Attr<float>("eps"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(llmos_low_rank, llmos::run_low_rank,
                              ffi::Ffi::Bind()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::S32>()
                                  .Arg<llmos::S32>()
                                  .Arg<llmos::S32>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<llmos::F32>()
                                  .RemainingArgs()
                                  .Ret<llmos::F32>()
                                  .Attr<float>("eps"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(llmos_attention, llmos::run_attention,
                              ffi::Ffi::Bind()
                                  .Arg<llmos::F32>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<llmos::S32>()
                                  .Arg<llmos::S32>()
                                  .Arg<llmos::S32>()
                                  .Arg<llmos::S32>()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::F32>()
                                  .Ret<llmos::F32>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int32_t>("heads")
                                  .Attr<int32_t>("kv_heads")
                                  .Attr<float>("scale")
                                  .Attr<float>("eps")
                                  .Attr<int32_t>("window")
                                  .Attr<float>("softcap")
                                  .Attr<int32_t>("interleaved"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(llmos_rms_norm, llmos::run_rms_norm,
                              ffi::Ffi::Bind()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::S32>()
                                  .Ret<llmos::F32>()
                                  .Attr<float>("eps"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(llmos_embed, llmos::run_embed,
                              ffi::Ffi::Bind()
                                  .Arg<llmos::S32>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<llmos::S32>()
                                  .Ret<llmos::F32>()
                                  .Attr<float>("scale"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(llmos_empty, llmos::run_empty, ffi::Ffi::Bind().Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(llmos_sample, llmos::run_sample,
                              ffi::Ffi::Bind()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::S32>()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::S32>()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::F32>()
                                  .Arg<llmos::S32>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .Arg<llmos::S32>()
                                  .Ret<llmos::S32>()
                                  .Ret<llmos::F32>()
                                  .Ret<llmos::S32>()
                                  .Ret<llmos::F32>());
#pragma GCC visibility pop

LLMOS_EXPORT int32_t llmos_pack(int32_t source, int32_t format, int64_t n, int64_t k, const uint8_t* data, int64_t bytes,
                                uint8_t* out) {
  return llmos::pack(source, format, n, k, data, bytes, out);
}
LLMOS_EXPORT int64_t llmos_packed_bytes(int32_t format, int64_t n, int64_t k) { return llmos::packed_bytes(format, n, k); }
LLMOS_EXPORT const char* llmos_isa() { return llmos::kernels().name; }
LLMOS_EXPORT const char* llmos_warning() { return llmos::dispatch_warning(); }
LLMOS_EXPORT void llmos_set_threads(int32_t n) { llmos::set_threads(n); }
LLMOS_EXPORT int32_t llmos_threads() { return llmos::threads(); }
// XLA's temporaries of a few MB are otherwise mapped and unmapped, and so zeroed page by page, at every step.
LLMOS_EXPORT void llmos_tune_allocator() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}
