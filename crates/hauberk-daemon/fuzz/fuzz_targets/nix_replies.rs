//! Whatever a nix-daemon answers to whichever operation, it is understood or refused, at once and in little memory, however the
//! answer is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| hauberk_daemon_fuzz::replies(&[0x122, 0x123, 0x125, 0x126], input));
