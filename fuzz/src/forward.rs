//! Arbitrary batches through a node with fixed tables.

use crate::cursor::Cursor;
use crate::world::World;

pub fn run(bytes: &[u8]) {
    let mut input = Cursor(bytes);
    let mut world = World::new(input.u8());
    while !input.is_empty() {
        match input.u8() % 4 {
            0 | 1 => world.from_port(&mut input),
            2 => world.from_underlay(&mut input),
            _ => {
                let seconds = input.u8();
                world.wait(seconds);
            }
        }
    }
}
