// The two-tap factors of a BCOP kernel: see the crate blockconv, chain.rs.
//
// A stack is groups x taps x block; a factor makes it groups x (taps + 1) x block by C_i = B_i + (A_{i-1} - B_{i-1}).
#include "portable.h"

KERNEL chain_expand(const float* a, const float* b, float* c, unsigned groups, unsigned taps, unsigned block) {
  EACH(i, groups * (taps + 1) * block) {
    unsigned e = i % block, tap = i / block % (taps + 1);
    size_t group = i / block / (taps + 1), at = (group * taps + tap) * block + e;
    float sum = tap < taps ? b[at] : 0.0f;
    if (tap > 0) sum += a[at - block] - b[at - block];
    c[i] = sum;
  }
}

// The transpose: dA_i = dC_{i+1} (its direct part) and dB_i = dC_i - dC_{i+1}.
KERNEL chain_contract(const float* dc, float* da, float* db, unsigned groups, unsigned taps, unsigned block) {
  EACH(i, groups * taps * block) {
    unsigned e = i % block, tap = i / block % taps;
    size_t at = ((i / block / taps) * (taps + 1) + tap) * block + e;
    float here = dc[at], after = dc[at + block];
    da[i] = after;
    db[i] = here - after;
  }
}
