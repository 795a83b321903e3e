//! The four operations.

use crate::backend::Runs;
use crate::config::FusedConfig;
use crate::device::Captured;
use crate::error::OpError;
use crate::operation::{Bound, Operation};
use crate::plan::{Kind, Plan};
use crate::workspace::FusedWorkspace;
use iris_heap::device::{Driver, RankStream};
use iris_heap::{Host, World};
use iris_kernels::Element;
use iris_sync::Word;

macro_rules! operation {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        ///
        /// A workspace is used on one stream at a time, and the compiler sees to it: this does not compile.
        ///
        /// ```compile_fail,E0499
        #[doc = concat!("use iris_ops::", stringify!($name), ";")]
        /// use iris_heap::Stream;
        #[doc = concat!("fn race(op: &mut ", stringify!($name), "<f32>, one: &Stream, two: &Stream) {")]
        ///     let first = op.bind(one).unwrap();
        ///     let second = op.bind(two).unwrap(); // second mutable borrow
        ///     drop((first, second));
        /// }
        /// ```
        ///
        /// One stream after the other does.
        ///
        /// ```
        #[doc = concat!("use iris_ops::", stringify!($name), ";")]
        /// use iris_heap::Stream;
        #[doc = concat!("fn in_turn(op: &mut ", stringify!($name), "<f32>, one: &Stream, two: &Stream) {")]
        ///     drop(op.bind(one).unwrap());
        ///     drop(op.bind(two).unwrap());
        /// }
        /// ```
        pub struct $name<T: Element, W: Word = i32, B: Runs<T, W> = Host>(Operation<T, W, B>);

        impl<T: Element, W: Word, B: Runs<T, W>> $name<T, W, B> {
            /// Creates the operation. Collective: all ranks compare their parameters, agree on a plan and allocate the
            /// workspace.
            ///
            /// # Errors
            /// Where the parameters are no problem's, differ between ranks (the error names rank and field), or the
            /// workspace does not fit the heap (it says how much is needed). All ranks get an error, or none.
            pub fn new(world: &World<B>, config: FusedConfig) -> Result<Self, OpError> {
                Operation::new($kind, world, config).map(Self)
            }

            /// Binds it to a stream, to be called there. Calls made on another stream before are waited for on the device.
            ///
            /// # Errors
            /// Where the stream is another rank's; [`OpError::StillBound`].
            pub fn bind<'a>(
                &'a mut self,
                stream: &'a B::Stream,
            ) -> Result<Bound<'a, T, W, B>, OpError> {
                self.0.bind(stream)
            }

            /// Makes it work again after a fault, and starts its counter anew. Collective; waits for this rank's own calls.
            ///
            /// Between a fault and the end of this, the output of the call that faulted is nobody's: a peer that has not noticed yet may still store a
            /// tile there. What is read there may be anything, and what is written may be lost.
            ///
            /// # Errors
            /// Where a rank has died or does not come; [`OpError::StillBound`].
            pub fn reset(&mut self) -> Result<(), OpError> {
                self.0.reset()
            }

            /// Gives its symmetric memory back. Collective; waits for this rank's own calls. Dropping an operation gives
            /// nothing back.
            ///
            /// # Errors
            /// Where a rank has died or does not come; [`OpError::StillBound`].
            pub fn free(self) -> Result<(), OpError> {
                self.0.free()
            }

            /// What it was created with.
            pub fn config(&self) -> &FusedConfig {
                self.0.config()
            }

            /// How a call of `m` rows is carried out, or `None` where it has none, or more than the operation was created
            /// for.
            pub fn plan(&self, m: usize) -> Option<Plan> {
                self.0.plan(m)
            }

            /// Its staging, signals and index.
            pub fn workspace(&self) -> &FusedWorkspace<T, W, B> {
                self.0.workspace()
            }

            /// The bytes of symmetric memory it takes at each rank.
            pub fn workspace_bytes(&self) -> usize {
                self.0.workspace().bytes()
            }
        }

        impl<T: Element, D: Driver + Runs<T, i32>> Captured<D> for $name<T, i32, D>
        where
            Operation<T, i32, D>: Captured<D>,
        {
            fn number(&self) -> u64 {
                self.0.number()
            }

            fn before(&mut self, stream: &RankStream<D>) -> Result<(), OpError> {
                self.0.before(stream)
            }

            fn after(&mut self, stream: &RankStream<D>, calls: u64) -> Result<(), OpError> {
                self.0.after(stream, calls)
            }
        }

        impl<T: Element, W: Word, B: Runs<T, W>> std::fmt::Debug for $name<T, W, B> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("config", self.config())
                    .field("workspace", self.workspace())
                    .finish()
            }
        }
    };
}

operation! {
    /// `C = sum over ranks of A_r B_r (+ bias)`, the same on all ranks.
    ///
    /// Rank r has A `(m, k_r)` and B `(k_r, n)`, where `k_r` is [`shard`](crate::shard)`(k, W, r)`, and gets C `(m, n)`.
    ///
    /// With `one_shot` and `two_shot` partial sums travel in the dtype and are summed in f32, in an order that is always the same: by rank, but for
    /// an owner's own part on Hopper, which stays in f32 and comes last. `atomic` and `spinlock` add in f32, in the order of arrival. With the variants `two_shot` and `auto`, peers store
    /// into C, which must then be a [symmetric buffer](iris_heap::World::symmetric_buffer), unless the operation was created with
    /// [`plain_output`](crate::FusedConfig::plain_output).
    MatmulAllReduce, Kind::AllReduce
}

operation! {
    /// Each rank's rows of `sum over ranks of A_r B_r (+ bias)`.
    ///
    /// Rank r has A `(m, k_r)` and B `(k_r, n)`, where `k_r` is [`shard`](crate::shard)`(k, W, r)`, and gets the rows
    /// `shard(m, W, r)` of the sum, as a matrix of that many rows. C may be any buffer.
    MatmulReduceScatter, Kind::ReduceScatter
}

operation! {
    /// `C_r = A B_r (+ bias)`, where A is gathered from the ranks.
    ///
    /// With [`GatherDim::Rows`](crate::GatherDim) rank r has the rows `shard(m, W, r)` of A `(m, k)`, with
    /// [`GatherDim::Columns`](crate::GatherDim) its columns `shard(k, W, r)`. It has B `(k, n_r)`, where `n_r` is
    /// [`shard`](crate::shard)`(n, W, r)`, a bias of `n_r`, and gets C `(m, n_r)`. All buffers may be plain.
    AllGatherMatmul, Kind::AllGatherMatmul
}

operation! {
    /// `C = A B (+ bias)`, where each rank multiplies some rows of A and all ranks get all rows of C.
    ///
    /// Rank r has the rows `shard(m, W, r)` of A `(m, k)`, and B `(k, n)`, the same on all ranks; it gets C `(m, n)`. Peers store
    /// into C, which must be a [symmetric buffer](iris_heap::World::symmetric_buffer), unless the operation was created with
    /// [`plain_output`](crate::FusedConfig::plain_output).
    MatmulAllGather, Kind::MatmulAllGather
}
