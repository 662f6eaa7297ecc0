// The two functions that Verilator's FST writer needs of LZ4, so that a waveform needs no library installed.
//
// Ref: LZ4 block format, https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

namespace s2tdpt_lz4 {

constexpr int kMinimum = 4;  // shortest match
constexpr int kTail = 12;    // no match begins in the last bytes
constexpr int kLiterals = 5; // the last bytes are literals
constexpr int kHashBits = 14;
constexpr int kWindow = 65535;

inline uint32_t read(const uint8_t* at) {
    uint32_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

// What does not fit the four bits of a token: bytes of 255, and one below.
inline uint8_t* extend(uint8_t* out, int length) {
    for (; length >= 255; length -= 255) *out++ = 255;
    *out++ = static_cast<uint8_t>(length);
    return out;
}

// A run of literals, then a match of `match` bytes (0: none, the last sequence) `offset` bytes back.
inline uint8_t* sequence(uint8_t* out, const uint8_t* literals, int count, int offset, int match) {
    uint8_t* token = out++;
    const int extra = match ? match - kMinimum : 0;
    *token = static_cast<uint8_t>((count < 15 ? count : 15) << 4 | (extra < 15 ? extra : 15));
    if (count >= 15) out = extend(out, count - 15);
    std::memcpy(out, literals, count);
    out += count;
    if (!match) return out;
    *out++ = static_cast<uint8_t>(offset);
    *out++ = static_cast<uint8_t>(offset >> 8);
    return extra >= 15 ? extend(out, extra - 15) : out;
}

}  // namespace s2tdpt_lz4

// Compressed size; 0 if it could exceed `room`.
inline int LZ4_compress_default(const char* from, char* to, int size, int room) {
    using namespace s2tdpt_lz4;
    if (room < LZ4_compressBound(size)) return 0;
    const uint8_t* in = reinterpret_cast<const uint8_t*>(from);
    uint8_t* out = reinterpret_cast<uint8_t*>(to);
    std::vector<int32_t> seen(1 << kHashBits, -1);  // last place of every hash
    int start = 0;  // first byte that is not written yet
    for (int at = 0; at + kTail < size;) {
        const uint32_t word = read(in + at);
        int32_t& place = seen[word * 2654435761u >> (32 - kHashBits)];
        const int found = place;
        place = at;
        if (found < 0 || at - found > kWindow || read(in + found) != word) {
            ++at;
            continue;
        }
        int match = kMinimum;
        while (at + match < size - kLiterals && in[found + match] == in[at + match]) ++match;
        out = sequence(out, in + start, at - start, at - found, match);
        at += match;
        start = at;
    }
    out = sequence(out, in + start, size - start, 0, 0);
    return static_cast<int>(out - reinterpret_cast<uint8_t*>(to));
}
