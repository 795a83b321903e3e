//! The signal protocol, searched: explicit-state models of every operation under the protocol's rules, and of what happens
//! with each rule removed.
//!
//! A model is a handful of *actors* (ranks, or blocks of ranks), each with a straight list of small operations on shared
//! *cells*: store a tile, release a signal, wait for one, read a tile that must be this call's. The search visits every
//! state that any interleaving can reach and looks for two things: a state in which nobody can move on (deadlock), and a read
//! that sees another call's data (wrong data). What a signal's value is, whether a word has reached it, and which bank a call
//! uses come from the crate itself, on rings so short (`Ring<7>`, `Ring<9>`) that a few calls run around them.
//!
//! To read it, begin with `world`, which holds the `Rules` and says of each what it is; then `script`, whose methods are the
//! rules as steps of a rank; then `operations`, which is what a rank does in one call of each operation. Then:
//!
//! | module | asks |
//! |---|---|
//! | `rules` | is every operation clean under the rules, in every world: all ranks alike, one owner of all tiles, a rank without depth, a rank without any work, sizes that vary from call to call? |
//! | `controls` | does each rule's removal do what the rule is there to prevent? |
//! | `blocks` | several blocks a rank, launches that overlap, streams that share a device, copy engines |
//! | `epochs` | reset, a fault anywhere, memory that is freed and used again |
//! | `upstream` | the protocols this one began from |
//! | `soundness` | does the search itself say the truth? how far do words run from what is waited for? |
//! | `machine`, `engine`, `reduce`, `visited`, `story` | models; their search; leaving out interleavings that cannot matter; the set of states; how a bad state came about, in words |
//!
//! # Sizes
//!
//! Sequentially consistent memory: 2 ranks, 16 calls (twice around the ring of 7, after which value and bank are both what
//! they were), and 3 ranks, 7 calls, on rings of 7 and 9 from every first value. Relaxed memory, in which only a release
//! orders stores: 2 ranks, 6 calls, and 3 ranks, 3 calls, started so that they come around. Operations with locks have fewer
//! calls. A model has a few hundred to a few hundred thousand states after reduction; all of them take some 30 seconds of one
//! core in the `dev` profile. `--nocapture` prints the states and time of each, and the traces of what fails as it must.
//!
//! # What is not modelled
//!
//! Loads are never reordered: a wait is taken to be an acquire that orders all later reads. A rank's blocks run one after
//! another in one fixed order, except in `blocks`. Budgets do not run out: a wait that would is a deadlock here.

mod blocks;
mod check;
mod controls;
mod engine;
mod epochs;
mod machine;
mod operations;
mod packets;
mod reduce;
mod rules;
mod script;
mod soundness;
mod story;
mod upstream;
mod visited;
mod world;
