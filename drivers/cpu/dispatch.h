// What: the choice of instruction set (see dispatch.cc).
// Invariant: made once, at first use.
// Interface: kernels() in kernels.h, dispatch_warning(), self_test(table).
#pragma once

#include <string>

#include "kernels.h"

namespace llmos {

const char* dispatch_warning();             // empty unless a set was stepped over
std::string self_test(const Kernels& table);  // empty when it agrees with the portable kernels

}  // namespace llmos
