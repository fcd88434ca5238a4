//! Arbitrary batches through a node with fixed tables.

use crate::cursor::Cursor;
use crate::world::World;

pub fn run(bytes: &[u8]) {
    let mut input = Cursor(bytes);
    let mut world = World::new(input.u8());
    while !input.is_empty() {
        let step = input.u8();
        if step >= 128 {
            world.set_offloads(step >> 4);
        }
        match step % 4 {
            0 | 1 => world.port_batch(&mut input),
            2 => world.underlay_batch(&mut input),
            3 if step & 64 != 0 => world.probe_batch(&mut input),
            _ => {
                let seconds = input.u8();
                world.wait(seconds);
            }
        }
    }
}
