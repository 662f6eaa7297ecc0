// Main program of a simulation: the model, the procedural interface that cocotb drives it through, the waveform.
//
// --waveform FILE writes an FST file of the cycles in which the bench's `wave` is high.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>

#include "Vtop.h"
#include "verilated.h"
#include "verilated_vpi.h"
#if VM_TRACE
#include "verilated_fst_c.h"
#endif

extern "C" void vlog_startup_routines_bootstrap(void);  // of the procedural interface's client

namespace {

vluint64_t now = 0;

// Value-change callbacks may write signals, which may call for more of them.
void call_value_changes() {
    while (VerilatedVpi::callValueCbs()) {
    }
}

// The active and the read-write regions of a time step (IEEE 1800-2017, 4.4), until nothing changes any more.
void settle(Vtop& top) {
    do {
        do {
            top.eval_step();
            VerilatedVpi::clearEvalNeeded();
            VerilatedVpi::doInertialPuts();
            call_value_changes();
        } while (VerilatedVpi::evalNeeded());
        VerilatedVpi::callCbs(cbReadWriteSynch);
        VerilatedVpi::doInertialPuts();
        call_value_changes();
    } while (VerilatedVpi::evalNeeded());
    top.eval_end_step();
}

// Where the simulation goes on; false if nothing is left to happen.
bool advance(Vtop& top) {
    const vluint64_t never = ~vluint64_t{0};
    const vluint64_t model = top.eventsPending() ? top.nextTimeSlot() : never;
    const vluint64_t next = std::min<vluint64_t>(VerilatedVpi::cbNextDeadline(), model);
    if (next == never) return false;
    now = next;
    VerilatedVpi::callCbs(cbNextSimTime);
    call_value_changes();
    VerilatedVpi::callTimedCbs();
    call_value_changes();
    return true;
}

#if VM_TRACE
std::unique_ptr<VerilatedFstC> waveform;
#endif

bool open_waveform(Vtop& top, int argc, char** argv) {
    const char* file = nullptr;
    for (int i = 1; i + 1 < argc; ++i)
        if (!std::strcmp(argv[i], "--waveform")) file = argv[i + 1];
    if (!file) return true;
#if VM_TRACE
    waveform = std::make_unique<VerilatedFstC>();
    top.trace(waveform.get(), 99);
    waveform->open(file);
    return waveform->isOpen();
#else
    std::fprintf(stderr, "Error: built without waveforms\n");
    return false;
#endif
}

// At the end of `main`, or when the model ends the program before that; once, and while the model is there.
void finish(void*) {
    static bool finished = false;
    if (finished) return;
    finished = true;
    VerilatedVpi::callCbs(cbEndOfSimulation);
#if VM_TRACE
    if (waveform) waveform->close();
    waveform.reset();
#endif
}

}  // namespace

double sc_time_stamp() { return static_cast<double>(now); }  // $time in the design

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    Verilated::fatalOnVpiError(false);  // cocotb asks for things that need not exist
#if VM_TRACE
    Verilated::traceEverOn(true);
#endif
    Vtop top{""};
    if (!open_waveform(top, argc, argv)) return 1;
    vlog_startup_routines_bootstrap();
    Verilated::addExitCb(finish, nullptr);
    VerilatedVpi::callCbs(cbStartOfSimulation);
    call_value_changes();
    do {
        settle(top);
        VerilatedVpi::callCbs(cbReadOnlySynch);
#if VM_TRACE
        if (waveform && top.wave) waveform->dump(now);
#endif
    } while (!Verilated::gotFinish() && advance(top));
    top.final();
    finish(nullptr);
    return Verilated::threadContextp()->errorCount() > 0;
}
