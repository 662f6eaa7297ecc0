// A board without a board: the Verilog behind a pseudo-terminal, its UART pins toggled bit by bit.
//
// Arguments: the file descriptor of the terminal's other end, the clock cycles of a bit. SIGUSR1 resets the board.
// It ends when its parent does. While nothing is said and nothing is under way, it sleeps.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>

#include "Vtop.h"
#include "verilated.h"

namespace {

constexpr std::uint64_t kQuiet = 2'000'000;  // cycles without a byte after which nothing is under way any more
constexpr int kResetCycles = 8;
constexpr unsigned kLook = 512;  // cycles between two looks at the terminal

volatile sig_atomic_t reset_wanted = 0;

// Start bit, eight data bits, stop bit on the pin `rx`.
class Talker {
public:
    explicit Talker(unsigned cycles) : cycles_(cycles) {}
    void say(std::uint8_t byte) { waiting_.push_back(byte); }
    bool busy() const { return left_ > 0 || !waiting_.empty(); }

    int pin() {
        if (left_ == 0) {
            if (waiting_.empty()) return 1;
            bits_ = (0x100u | waiting_.front()) << 1;
            waiting_.pop_front();
            left_ = 10 * cycles_;
        }
        return bits_ >> ((10 * cycles_ - left_--) / cycles_) & 1;
    }

private:
    unsigned cycles_, bits_ = 0, left_ = 0;
    std::deque<std::uint8_t> waiting_;
};

// Bytes from the pin `tx`, every bit sampled in its middle.
class Listener {
public:
    explicit Listener(unsigned cycles) : cycles_(cycles) {}

    bool hear(int pin, std::uint8_t& byte) {
        if (at_ == 0) {
            if (!pin) at_ = 1;
            return false;
        }
        const unsigned offset = at_++;
        if (offset % cycles_ != cycles_ / 2) return false;
        const unsigned bit = offset / cycles_;
        if (bit >= 1 && bit <= 8) byte_ = static_cast<std::uint8_t>(byte_ >> 1 | pin << 7);
        if (bit < 9) return false;
        at_ = 0;
        byte = byte_;
        return pin != 0;
    }

private:
    unsigned cycles_, at_ = 0;
    std::uint8_t byte_ = 0;
};

void tick(Vtop& top) {
    top.clk = 0;
    top.eval();
    top.clk = 1;
    top.eval();
}

void reset(Vtop& top) {
    top.rst = 1;
    for (int i = 0; i < kResetCycles; ++i) tick(top);
    top.rst = 0;
}

// Bytes from the terminal; waits for them if `idle`.
void read_terminal(int terminal, bool idle, Talker& talker) {
    pollfd entry{terminal, POLLIN, 0};
    if (poll(&entry, 1, idle ? 100 : 0) <= 0) return;
    std::uint8_t data[4096];
    const ssize_t count = read(terminal, data, sizeof data);
    if (count > 0)
        for (ssize_t i = 0; i < count; ++i) talker.say(data[i]);
    else if (idle)
        usleep(10'000);  // nobody has the terminal open
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "Error: expected a file descriptor and the cycles of a bit\n");
        return 1;
    }
    const int terminal = std::atoi(argv[1]);
    const unsigned cycles = std::atoi(argv[2]);
    const pid_t parent = getppid();
    signal(SIGUSR1, [](int) { reset_wanted = 1; });
    Vtop top{""};
    Talker talker(cycles);
    Listener listener(cycles);
    std::uint64_t quiet = 0;
    top.rx = 1;
    reset(top);
    for (std::uint64_t cycle = 0;; ++cycle) {
        if (cycle % kLook == 0 || quiet > kQuiet) {
            read_terminal(terminal, quiet > kQuiet, talker);
            if (getppid() != parent) return 0;
        }
        if (reset_wanted) {
            reset_wanted = 0;
            reset(top);
        }
        if (talker.busy()) quiet = 0;
        top.rx = talker.pin();
        tick(top);
        ++quiet;
        std::uint8_t byte;
        if (listener.hear(top.tx, byte)) {
            quiet = 0;
            while (write(terminal, &byte, 1) < 0 && (errno == EINTR || errno == EAGAIN)) usleep(1000);
        }
    }
}
