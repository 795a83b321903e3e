//! Tables of functions.

use libloading::os::unix::Library;

/// A function that a table has a place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol {
    /// Its name in C.
    pub name: &'static str,
    /// Whether a library without it is refused. Where it is optional, the table holds an `Option`.
    pub required: bool,
    /// The types of its parameters, by the names that they have here and, but for C's own types, in C.
    pub parameters: &'static [&'static str],
    /// The type of its result.
    pub result: &'static str,
}

/// A table of functions, filled from a library.
pub(crate) trait Table: Sized {
    /// All functions of the table.
    const SYMBOLS: &'static [Symbol];

    /// The table filled from `library`; or the names of all required functions that it lacks.
    fn resolve(library: &Library) -> Result<Self, Vec<&'static str>>;
}

/// The function `name` of `library`, where it has one.
///
/// # Safety
/// `F` is the type of a function pointer, and the type of the function of that name.
pub(crate) unsafe fn find<F: Copy>(library: &Library, name: &str) -> Option<F> {
    // SAFETY: `Option<F>` has the layout of a pointer that may be null, and the type is right by the caller's word.
    let symbol = unsafe { library.get::<Option<F>>(name) };
    symbol.ok().and_then(|function| *function)
}

/// Declares a table: a struct with a function pointer for each function, which is an `Option` where it says `optional`.
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub struct $table:ident {
            $($(#[$doc:meta])* $kind:ident fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $ret:ty;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        #[non_exhaustive]
        pub struct $table {
            $(
                $(#[$doc])*
                pub $name: $crate::dynamic::table::field!(
                    $kind, unsafe extern "C" fn($($arg: $type),*) -> $ret
                ),
            )*
        }

        impl $table {
            /// All functions that the table has a place for.
            pub const SYMBOLS: &'static [$crate::dynamic::Symbol] = &[$(
                $crate::dynamic::Symbol {
                    name: stringify!($name),
                    required: $crate::dynamic::table::required!($kind),
                    parameters: &[$(stringify!($type)),*],
                    result: stringify!($ret),
                },
            )*];

            /// The optional functions that the loaded library lacks.
            #[must_use]
            pub fn absent(&self) -> Vec<&'static str> {
                let mut absent = Vec::new();
                $($crate::dynamic::table::note_absent!($kind, self.$name, $name, absent);)*
                absent
            }
        }

        impl $crate::dynamic::table::Table for $table {
            const SYMBOLS: &'static [$crate::dynamic::Symbol] = Self::SYMBOLS;

            fn resolve(
                library: &libloading::os::unix::Library,
            ) -> Result<Self, Vec<&'static str>> {
                let mut missing = Vec::new();
                $(
                    // SAFETY: the type is the C prototype of the function of this name. The conformance test compares
                    // the two, type by type, as the C compiler reads the header.
                    let $name = unsafe {
                        $crate::dynamic::table::find::<
                            unsafe extern "C" fn($($arg: $type),*) -> $ret,
                        >(library, stringify!($name))
                    };
                    $crate::dynamic::table::note_missing!($kind, $name, missing);
                )*
                Ok(Self {
                    $($name: $crate::dynamic::table::take!($kind, $name, missing),)*
                })
            }
        }
    };
}

macro_rules! field {
    (required, $function:ty) => { $function };
    (optional, $function:ty) => { Option<$function> };
}

macro_rules! required {
    (required) => {
        true
    };
    (optional) => {
        false
    };
}

macro_rules! note_absent {
    (required, $field:expr, $name:ident, $absent:ident) => {};
    (optional, $field:expr, $name:ident, $absent:ident) => {
        if $field.is_none() {
            $absent.push(stringify!($name));
        }
    };
}

macro_rules! note_missing {
    (required, $name:ident, $missing:ident) => {
        if $name.is_none() {
            $missing.push(stringify!($name));
        }
    };
    (optional, $name:ident, $missing:ident) => {};
}

// All functions have been looked for when the first is taken, so that `missing` is complete.
macro_rules! take {
    (required, $name:ident, $missing:ident) => {
        match $name {
            Some(function) => function,
            None => return Err($missing),
        }
    };
    (optional, $name:ident, $missing:ident) => {
        $name
    };
}

pub(crate) use {field, note_absent, note_missing, required, table, take};
