// bf16 on the host: the upper half of a float, rounded to the nearest, to even ones where two are as near.
#pragma once

struct __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float value) {
        unsigned whole;
        __builtin_memcpy(&whole, &value, 4);
        bool nan = value != value;
        bits = nan ? 0x7fff : (whole + 0x7fff + (whole >> 16 & 1)) >> 16;
    }
    operator float() const {
        unsigned whole = (unsigned)bits << 16;
        float value;
        __builtin_memcpy(&value, &whole, 4);
        return value;
    }
};
