// What: the table of kernels of one instruction set; compiled once for each, like the kernels.
// Invariant: refers to this namespace's functions only.
// Interface: table().
#include "kernels.h"
#include "simd.h"

#define LLMOS_TEXT(x) LLMOS_TEXT_(x)
#define LLMOS_TEXT_(x) #x

namespace llmos {
namespace LLMOS_ISA {

void linear(const LinearArgs&);
void low_rank(const LowRankArgs&);
void attention(const AttentionArgs&);
void rms_norm(const NormArgs&);
void embed(const EmbedArgs&);
void sample(const SampleArgs&);

const Kernels& table() {
  static const Kernels t = {LLMOS_TEXT(LLMOS_ISA), linear, low_rank, attention, rms_norm, embed, sample};
  return t;
}

}  // namespace LLMOS_ISA
}  // namespace llmos
