//! The raw codec: text and bytes as they are.
//!
//! Takes what serializes as a string, a byte string or a sequence of `u8`, and gives the same back. All else is
//! refused with the name of what was met, rather than written in some form that other languages would have to guess.

use std::fmt::Display;

use serde::{
    Serialize, Serializer,
    de::{DeserializeOwned, Deserializer, Visitor, value::SeqDeserializer},
    forward_to_deserialize_any,
    ser::{Impossible, SerializeSeq, SerializeTuple},
};

/// Why a value is not raw bytes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RawError(String);

impl serde::ser::Error for RawError {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl serde::de::Error for RawError {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, RawError> {
    let mut out = Vec::new();
    value.serialize(Writer { out: &mut out, element: false })?;
    Ok(out)
}

pub(super) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RawError> {
    T::deserialize(Reader(bytes))
}

/// Writes one value; as `element` the `u8` of a sequence and nothing else.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    element: bool,
}

fn refused<T>(what: &str) -> Result<T, RawError> {
    Err(RawError(format!("the raw codec takes text and bytes, not {what}")))
}

macro_rules! refuse {
    ($($method:ident($($arg:ty),*) -> $ok:ty = $what:literal;)*) => {
        $(fn $method(self, $(_: $arg),*) -> Result<$ok, RawError> { refused($what) })*
    };
}

impl Serializer for Writer<'_> {
    type Ok = ();
    type Error = RawError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Impossible<(), RawError>;
    type SerializeTupleVariant = Impossible<(), RawError>;
    type SerializeMap = Impossible<(), RawError>;
    type SerializeStruct = Impossible<(), RawError>;
    type SerializeStructVariant = Impossible<(), RawError>;

    fn serialize_u8(self, byte: u8) -> Result<(), RawError> {
        if !self.element {
            return refused("a number");
        }
        self.out.push(byte);
        Ok(())
    }

    fn serialize_str(self, text: &str) -> Result<(), RawError> {
        self.serialize_bytes(text.as_bytes())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), RawError> {
        if self.element {
            return refused("a sequence of text or bytes");
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn serialize_char(self, character: char) -> Result<(), RawError> {
        self.serialize_str(character.encode_utf8(&mut [0; 4]))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self, RawError> {
        if self.element {
            return refused("a sequence of sequences");
        }
        // The length is a hint of the caller's: trusted as far as a page.
        self.out.reserve(length.unwrap_or(0).min(4096));
        Ok(Writer { out: self.out, element: true })
    }

    fn serialize_tuple(self, length: usize) -> Result<Self, RawError> {
        self.serialize_seq(Some(length))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), RawError> {
        value.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _value: &T) -> Result<(), RawError> {
        refused("an option")
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), RawError> {
        refused("an enum")
    }

    refuse! {
        serialize_bool(bool) -> () = "a bool";
        serialize_i8(i8) -> () = "a number";
        serialize_i16(i16) -> () = "a number";
        serialize_i32(i32) -> () = "a number";
        serialize_i64(i64) -> () = "a number";
        serialize_u16(u16) -> () = "a number";
        serialize_u32(u32) -> () = "a number";
        serialize_u64(u64) -> () = "a number";
        serialize_f32(f32) -> () = "a number";
        serialize_f64(f64) -> () = "a number";
        serialize_none() -> () = "an option";
        serialize_unit() -> () = "a unit";
        serialize_unit_struct(&'static str) -> () = "a unit";
        serialize_unit_variant(&'static str, u32, &'static str) -> () = "an enum";
        serialize_tuple_struct(&'static str, usize) -> Impossible<(), RawError> = "a struct";
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Impossible<(), RawError> = "an enum";
        serialize_map(Option<usize>) -> Impossible<(), RawError> = "a map";
        serialize_struct(&'static str, usize) -> Impossible<(), RawError> = "a struct";
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Impossible<(), RawError> = "an enum";
    }
}

impl SerializeSeq for Writer<'_> {
    type Ok = ();
    type Error = RawError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), RawError> {
        value.serialize(Writer { out: self.out, element: true })
    }

    fn end(self) -> Result<(), RawError> {
        Ok(())
    }
}

impl SerializeTuple for Writer<'_> {
    type Ok = ();
    type Error = RawError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), RawError> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), RawError> {
        Ok(())
    }
}

/// Gives the bytes as what the visitor asks for: text, bytes, or a sequence of `u8`.
struct Reader<'a>(&'a [u8]);

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = RawError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RawError> {
        match std::str::from_utf8(self.0) {
            Ok(text) => visitor.visit_str(text),
            Err(_) => visitor.visit_bytes(self.0),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RawError> {
        visitor.visit_bytes(self.0)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RawError> {
        visitor.visit_bytes(self.0)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RawError> {
        let mut bytes = SeqDeserializer::new(self.0.iter().copied());
        let value = visitor.visit_seq(&mut bytes)?;
        bytes.end()?;
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, RawError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RawError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RawError> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string unit unit_struct tuple_struct map struct
        enum identifier ignored_any
    }
}
