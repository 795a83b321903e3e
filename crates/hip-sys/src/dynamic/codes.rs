//! C enumerations as integers, and handles as opaque pointers.
//!
//! A C library of another version may return a value that its enumeration did not have when these bindings were
//! written. So an enumeration is an integer here, of which some values have a name, and any value is valid.
#![allow(
    unused_macros,
    unused_imports,
    reason = "all bindings have these files, and none uses all of it"
)]

/// Declares a C enumeration: a transparent integer type, a constant for each value with a name, and the names.
macro_rules! codes {
    (
        $(#[$meta:meta])*
        pub struct $type:ident($int:ty) {
            $($(#[$doc:meta])* $name:ident = $value:expr;)*
        }
        $(aliases {
            $($(#[$alias_doc:meta])* $alias:ident = $target:ident;)*
        })?
    ) => {
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub $int);

        $($(#[$doc])* pub const $name: $type = $type($value);)*
        $($($(#[$alias_doc])* pub const $alias: $type = $target;)*)?

        impl $type {
            /// The values that have a name, each with that name.
            pub const NAMED: &'static [(&'static str, Self)] = &[$((stringify!($name), $name)),*];

            /// The name of this value, where it has one.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                let mut named = Self::NAMED.iter();
                named.find_map(|&(name, value)| (value == self).then_some(name))
            }
        }

        /// `name (number)`, or the number alone where it has no name.
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name} ({})", self.0),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name} ({})", self.0),
                    None => write!(f, "{}({})", stringify!($type), self.0),
                }
            }
        }
    };
}

/// Declares the error of a call that returned a code other than 0, which is success in all these libraries.
macro_rules! call_error {
    ($(#[$meta:meta])* pub struct $error:ident($code:ident);) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        #[error("{call}: {code}")]
        pub struct $error {
            /// The function that was called.
            pub call: &'static str,
            /// What it returned.
            pub code: $code,
        }

        impl $code {
            /// An error that names `call`, unless the code is 0, that of success.
            ///
            /// # Errors
            /// Where the code is another.
            pub const fn check(self, call: &'static str) -> Result<(), $error> {
                match self.0 {
                    0 => Ok(()),
                    _ => Err($error { call, code: self }),
                }
            }
        }

        impl std::error::Error for $code {}
    };
}

/// Declares handles: pointers to structs of which nothing is known.
macro_rules! handles {
    ($($(#[$doc:meta])* $handle:ident = *mut $struct:ident;)*) => {
        $(
            #[doc = concat!("What a [`", stringify!($handle), "`] points to. Nothing is known of it.")]
            #[repr(C)]
            #[derive(Debug)]
            pub struct $struct {
                _opaque: [u8; 0],
                _not_send: std::marker::PhantomData<(*mut u8, std::marker::PhantomPinned)>,
            }

            $(#[$doc])*
            pub type $handle = *mut $struct;
        )*
    };
}

/// Declares flags, and the list of them.
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: $type = $value;)*

        /// All flags with their names.
        pub const FLAGS: &[(&str, i64)] = &[$((stringify!($name), $name as i64)),*];
    };
}

pub(crate) use {call_error, codes, flags, handles};
