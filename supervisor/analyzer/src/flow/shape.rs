//! What a result is wrapped in where it is followed, and how it is used there.

/// One thing around a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer<'a> {
    /// An array, object, map or set; the key, where the source says it.
    Holder(Option<&'a str>),
    /// A map, whose iteration gives entries.
    Table,
    /// A pair of a key and what is followed.
    Entry,
    /// A function that returns it.
    Function,
    /// A promise of it.
    Promise,
}

/// Layers around a result, the innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape<'a>(Vec<Layer<'a>>);

/// More layers than any program that is meant to be understood has.
const DEPTH_MAX: usize = 8;

impl<'a> Shape<'a> {
    pub fn outermost(&self) -> Option<Layer<'a>> {
        self.0.last().copied()
    }

    pub fn within(mut self, layer: Layer<'a>) -> Shape<'a> {
        self.0.push(layer);
        self
    }

    /// Without its outermost layer.
    pub fn inner(mut self) -> Shape<'a> {
        self.0.pop();
        self
    }

    pub fn is_too_deep(&self) -> bool {
        self.0.len() > DEPTH_MAX
    }

    /// What iterating gives, if it can be iterated.
    pub fn element(self) -> Option<Shape<'a>> {
        match self.outermost()? {
            Layer::Holder(_) | Layer::Entry => Some(self.inner()),
            Layer::Table => Some(self.inner().within(Layer::Entry)),
            Layer::Function | Layer::Promise => None,
        }
    }

    /// Used as anything but a promise. Whether a function or a promise of something exists says nothing of its
    /// result.
    pub fn tested(&self) -> Uses {
        match self.outermost() {
            None | Some(Layer::Holder(_) | Layer::Table | Layer::Entry) => Uses::VALUE,
            Some(Layer::Function | Layer::Promise) => Uses::NONE,
        }
    }

    /// Given to someone who awaits it.
    pub fn adopted(&self) -> Uses {
        match self.outermost() {
            None => Uses::EITHER,
            Some(Layer::Holder(_) | Layer::Table | Layer::Entry) => Uses::VALUE,
            // Awaited or called, and then awaited.
            Some(Layer::Promise | Layer::Function) => self.clone().inner().adopted(),
        }
    }
}

/// The ways in which a result is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses {
    /// With `then`, `catch` or `finally`, which only a promise has.
    pub chained: bool,
    /// Where a promise and a value do equally well.
    pub awaited: bool,
    /// Where a promise makes no sense.
    pub value: bool,
    /// Given to someone who awaits it, which says nothing of what the program means it to be.
    pub either: bool,
}

impl Uses {
    pub const NONE: Uses = Uses { chained: false, awaited: false, value: false, either: false };
    pub const CHAINED: Uses = Uses { chained: true, ..Uses::NONE };
    pub const AWAITED: Uses = Uses { awaited: true, ..Uses::NONE };
    pub const EITHER: Uses = Uses { either: true, ..Uses::NONE };
    pub const VALUE: Uses = Uses { value: true, ..Uses::NONE };

    pub fn and(self, other: Uses) -> Uses {
        Uses {
            chained: self.chained || other.chained,
            awaited: self.awaited || other.awaited,
            value: self.value || other.value,
            either: self.either || other.either,
        }
    }
}
