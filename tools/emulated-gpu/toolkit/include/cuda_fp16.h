// f16 on the host.
#pragma once

struct __half {
    _Float16 value;
    __half() = default;
    __half(float value) : value((_Float16)value) {}
    operator float() const { return (float)value; }
};
