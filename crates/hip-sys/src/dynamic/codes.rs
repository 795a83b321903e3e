//! C enumerations as integers.
//!
//! A C library of another version may return a value that its enumeration did not have when these bindings were
//! written. So an enumeration is an integer here, of which some values have a name, and any value is valid.

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

pub(crate) use codes;
