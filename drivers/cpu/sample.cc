// What: the next token of each row: penalties, mask, temperature, top-k, top-p, min-p, then one draw.
// Invariant: a row's token is a pure function of its logits, parameters and u. Filters keep a prefix of the tokens
//     ordered by (probability descending, id ascending); the draw walks the kept tokens in id order with f64 sums and
//     takes the first whose running sum exceeds u times their total. Greedy takes the lowest id among equals. A row with
//     a NaN or +infinity, or whose mask allows nothing, yields token -1 (never a made-up one). Log-probabilities are
//     those of the unmodified softmax.
// Interface: sample (see kernels.h for shapes).
#include "kernels.h"
#include "scratch.h"
#include "simd.h"
#include "threads.h"

namespace llmos {
namespace LLMOS_ISA {

void sample(const SampleArgs& a);

namespace {

constexpr float kNever = -__builtin_inff();

struct Candidate {
  float p;
  int32_t id;
};

// The order in which filters keep tokens.
inline bool before(const Candidate& a, const Candidate& b) { return a.p > b.p || (a.p == b.p && a.id < b.id); }

inline F8 load_tail(const float* p, int64_t n) {  // lanes past n never win
  float t[8];
  for (int64_t i = 0; i < 8; ++i) t[i] = i < n ? p[i] : kNever;
  return load(t);
}

inline F8 load_at(const float* x, int64_t i, int64_t n) { return i + 8 <= n ? load(x + i) : load_tail(x + i, n - i); }

// max(x), or NaN where a value is NaN or +infinity.
float valid_max(const float* x, int64_t n) {
  F8 top = set1(kNever), limit = set1(__builtin_inff());
  int good = 0xff;
  for (int64_t i = 0; i < n; i += 8) {
    F8 v = load_at(x, i, n);
    good &= mask_less(v, limit);
    top = max(v, top);
  }
  return good == 0xff ? max_lanes(top) : __builtin_nanf("");
}

// Sum of e^((x - top) * inverse), in lanes over stretches of 1024, then in double. Writes the terms where out is given.
double exp_sum(const float* x, int64_t n, float top, float inverse, float* out) {
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += 1024) {
    const int64_t end = begin + 1024 < n ? begin + 1024 : n;
    F8 sum = zero();
    for (int64_t i = begin; i < end; i += 8) {
      F8 p = exp(mul(sub(load_at(x, i, n), set1(top)), set1(inverse)));
      if (out) store(out + i, p);
      sum = add(sum, p);
    }
    float lanes[8];
    store(lanes, sum);
    for (int i = 0; i < 8; ++i) total += lanes[i];
  }
  return total;
}

int32_t argmax(const float* x, int64_t n, float top) {  // n a multiple of 8
  for (int64_t i = 0; i < n; i += 8) {
    int lower = mask_less(load(x + i), set1(top));
    if (lower != 0xff) return static_cast<int32_t>(i + __builtin_ctz(~static_cast<unsigned>(lower)));
  }
  return -1;
}

// Reorders c[0, n) so that the tokens that come first in `before` order and together reach `count` tokens or `mass` lie
// at the front; returns how many they are. Whichever target is met first ends the prefix.
int64_t keep_prefix(Candidate* c, int64_t n, int64_t count, double mass) {
  int64_t kept = 0;
  double held = 0.0;
  int64_t lo = 0, hi = n;
  while (lo < hi) {
    if (hi - lo == 1) {
      return lo + 1;
    }
    Candidate x = c[lo], y = c[lo + (hi - lo) / 2], z = c[hi - 1];
    Candidate pivot = before(x, y) ? (before(y, z) ? y : before(x, z) ? z : x) : (before(x, z) ? x : before(y, z) ? z : y);
    int64_t mid = lo;
    double part = 0.0;
    for (int64_t i = lo; i < hi; ++i)
      if (before(c[i], pivot)) {
        part += c[i].p;
        Candidate t = c[i];
        c[i] = c[mid];
        c[mid++] = t;
      }
    if (mid > lo && (kept + (mid - lo) >= count || held + part >= mass)) {
      hi = mid;
      continue;
    }
    // The pivot itself follows what lies before it.
    for (int64_t i = mid; i < hi; ++i)
      if (c[i].id == pivot.id) {
        c[i] = c[mid];
        c[mid] = pivot;
        break;
      }
    kept += mid - lo + 1;
    held += part + pivot.p;
    lo = mid + 1;
    if (kept >= count || held >= mass) return lo;
  }
  return lo;
}

// The last token (in `before` order) that top-k and top-p keep; p[0, padded) are the weights.
Candidate last_kept(const float* p, int64_t padded, double total, int64_t top_k, float top_p, Candidate* c) {
  for (float floor = 1.0f / 1024; ; floor = floor > 1e-7f ? floor / 1024 : 0.0f) {
    int64_t n = 0;
    double held = 0.0;
    for (int64_t i = 0; i < padded; i += 8) {
      for (int lanes = mask_less(set1(floor), load(p + i)); lanes; lanes &= lanes - 1) {
        int64_t id = i + __builtin_ctz(static_cast<unsigned>(lanes));
        c[n++] = {p[id], static_cast<int32_t>(id)};
        held += p[id];
      }
    }
    const int64_t count = top_k > 0 ? top_k : padded;
    const bool enough = n >= count || (top_p < 1.0f && top_k <= 0 && held >= top_p * total);
    if (!enough && floor > 0.0f) continue;
    int64_t kept = n;
    if (top_k > 0 && top_k < n) kept = keep_prefix(c, n, top_k, 1e300);
    if (top_p < 1.0f) {
      double mass = total;
      if (top_k > 0) {
        mass = 0.0;
        for (int64_t i = 0; i < kept; ++i) mass += c[i].p;
      }
      kept = keep_prefix(c, kept, padded, top_p * mass);
    }
    Candidate last = c[0];
    for (int64_t i = 1; i < kept; ++i)
      if (before(last, c[i])) last = c[i];
    return last;
  }
}

// work[0, padded): the allowed logits of row r, whose maximum is top; overwritten.
int32_t draw(const SampleArgs& a, int64_t r, float* work, int64_t padded, float top, Scratch& scratch) {
  const float temperature = a.temperature[r];
  if (!(temperature > 0.0f)) return argmax(work, padded, top);
  double total = exp_sum(work, padded, top, 1.0f / temperature, work);
  Candidate last{0.0f, 0x7fffffff};
  if (a.top_k[r] > 0 || a.top_p[r] < 1.0f)
    last = last_kept(work, padded, total, a.top_k[r], a.top_p[r], scratch.take<Candidate>(padded));
  if (a.min_p[r] > last.p) last = {a.min_p[r] < 1.0f ? a.min_p[r] : 1.0f, 0x7fffffff};
  // Two walks over the kept tokens in id order: their total, then the draw.
  double target = 0.0;
  int32_t token = -1;
  for (int walk = 0; walk < 2; ++walk) {
    double sum = 0.0;
    for (int64_t i = 0; i < padded; i += 8) {
      int lanes = 0xff & ~mask_less(load(work + i), set1(last.p));
      for (; lanes; lanes &= lanes - 1) {
        const int64_t id = i + __builtin_ctz(static_cast<unsigned>(lanes));
        if (!(work[id] > 0.0f) || (work[id] == last.p && id > last.id)) continue;
        sum += work[id];
        if (walk) {
          token = static_cast<int32_t>(id);
          if (sum > target) return token;
        }
      }
    }
    target = static_cast<double>(a.u[r]) * sum;
  }
  return token;  // u rounded up to 1: the last kept token
}

void sample_row(const SampleArgs& a, int64_t r) {
  const int64_t n = a.vocab, padded = (n + 7) / 8 * 8, top_n = a.top;
  const float* x = a.logits + r * n;
  Scratch scratch(thread_arena(1));
  float* work = scratch.take<float>(padded);

  const float top = valid_max(x, n);
  const bool valid = top > kNever;  // false for NaN
  const double log_sum = valid ? top + __builtin_log(exp_sum(x, n, top, 1.0f, nullptr)) : __builtin_nan("");

  int32_t token = a.forced ? a.forced[r] : -1;
  if (token < 0 && valid) {
    const uint8_t* mask = a.mask ? reinterpret_cast<const uint8_t*>(a.mask + r * ((n + 31) / 32)) : nullptr;
    for (int64_t i = 0; i < n; i += 8) {
      F8 v = load_at(x, i, n);
      if (mask) v = select_bits(mask[i / 8], v, set1(kNever));
      store(work + i, v);
    }
    const float penalty = a.penalty[r];
    if (penalty != 1.0f) {
      const int32_t* recent = a.recent + r * a.recent_width;
      for (int64_t i = 0; i < a.recent_width; ++i) {
        const int32_t id = recent[i];
        if (id < 0 || id >= n || work[id] == kNever) continue;
        work[id] = x[id] > 0.0f ? x[id] / penalty : x[id] * penalty;  // from x: a repeated id is penalised once
      }
    }
    F8 m = set1(kNever);
    for (int64_t i = 0; i < padded; i += 8) m = max(load(work + i), m);
    const float allowed = max_lanes(m);
    if (allowed > kNever) token = draw(a, r, work, padded, allowed, scratch);
  }
  a.token[r] = token;
  a.logprob[r] = token >= 0 && token < n ? static_cast<float>(x[token] - log_sum) : __builtin_nanf("");

  int32_t* ids = a.top_ids + r * top_n;
  float* values = a.top_logprobs + r * top_n;
  int64_t held = 0;
  for (int64_t i = 0; i < n && top_n > 0; i += 8) {
    F8 v = load_at(x, i, n);
    int lanes = held < top_n ? 0xff : mask_less(set1(values[top_n - 1]), v);
    for (; lanes; lanes &= lanes - 1) {
      const int64_t id = i + __builtin_ctz(static_cast<unsigned>(lanes));
      if (id >= n || (held == top_n && !(x[id] > values[top_n - 1]))) continue;
      int64_t at = held < top_n ? held++ : top_n - 1;
      for (; at > 0 && x[id] > values[at - 1]; --at) {
        values[at] = values[at - 1];
        ids[at] = ids[at - 1];
      }
      values[at] = x[id];
      ids[at] = static_cast<int32_t>(id);
    }
  }
  for (int64_t i = 0; i < top_n; ++i) {
    if (i < held) values[i] = static_cast<float>(values[i] - log_sum);
    else {
      values[i] = __builtin_nanf("");
      ids[i] = -1;
    }
  }
}

}  // namespace

void sample(const SampleArgs& a) {
  parallel(static_cast<int>(a.rows), [&](int r) { sample_row(a, r); });
}

}  // namespace LLMOS_ISA
}  // namespace llmos
