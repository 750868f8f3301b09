//! Writing the ATerm text of derivations.

use std::borrow::Cow;

use super::{Derivation, OutputNames};
use crate::store_path::StorePath;

pub(super) fn print(derivation: &Derivation) -> Vec<u8> {
    print_with(derivation, false, |printer| {
        printer.list(&derivation.input_derivations, |printer, (drv, names)| {
            printer.raw("(");
            printer.path(drv);
            printer.names(names);
        });
    })
}

/// A hash that stands for an input derivation, and the outputs used.
pub(super) type MaskedInput<'a> = (&'a str, Cow<'a, OutputNames>);

/// Writes the text whose hash output paths follow from: with hashes in place of the inputs' paths, and, for the
/// derivation's own outputs, with nothing where their paths stand.
pub(super) fn print_masked(
    derivation: &Derivation,
    inputs: &[MaskedInput<'_>],
    mask_outputs: bool,
) -> Vec<u8> {
    print_with(derivation, mask_outputs, |printer| {
        printer.list(inputs, |printer, (hash, names)| {
            printer.raw("(");
            printer.plain(hash);
            printer.names(names);
        });
    })
}

fn print_with(derivation: &Derivation, mask: bool, inputs: impl FnOnce(&mut Printer)) -> Vec<u8> {
    let mut printer = Printer(Vec::with_capacity(1024));
    printer.raw("Derive([");
    printer.list(&derivation.outputs, |printer, (name, output)| {
        printer.raw("(");
        printer.plain(name.as_str());
        printer.raw(",");
        match &output.path {
            Some(path) if !mask => printer.path(path),
            _ => printer.raw("\"\""),
        }
        printer.raw(",");
        printer.string(output.hash_algo.as_bytes());
        printer.raw(",");
        printer.string(output.hash.as_bytes());
        printer.raw(")");
    });
    printer.raw(",[");
    inputs(&mut printer);
    printer.raw(",[");
    printer.list(&derivation.input_sources, |printer, path| printer.path(path));
    printer.raw(",");
    printer.string(derivation.system.as_bytes());
    printer.raw(",");
    printer.string(&derivation.builder);
    printer.raw(",[");
    printer.list(&derivation.args, |printer, arg| printer.string(arg));
    printer.raw(",[");
    printer.list(&derivation.env, |printer, (name, value)| {
        printer.raw("(");
        printer.string(name);
        printer.raw(",");
        let output =
            mask && std::str::from_utf8(name).is_ok_and(|name| derivation.outputs.contains_key(name));
        printer.string(if output { b"" } else { value });
        printer.raw(")");
    });
    printer.raw(")");
    printer.0
}

struct Printer(Vec<u8>);

impl Printer {
    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Quotes a text that needs no escapes.
    fn plain(&mut self, text: &str) {
        self.raw("\"");
        self.raw(text);
        self.raw("\"");
    }

    /// Writes the names of an input's outputs and closes the input.
    fn names(&mut self, names: &OutputNames) {
        self.raw(",[");
        self.list(names, |printer, name| printer.plain(name.as_str()));
        self.raw(")");
    }

    fn path(&mut self, path: &StorePath) {
        self.raw("\"");
        self.raw(path.directory().as_str());
        self.raw("/");
        self.raw(path.base_name());
        self.raw("\"");
    }

    fn string(&mut self, mut text: &[u8]) {
        self.raw("\"");
        while let Some(stop) =
            text.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t'))
        {
            self.0.extend_from_slice(&text[..stop]);
            self.0.push(b'\\');
            self.0.push(match text[stop] {
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                other => other,
            });
            text = &text[stop + 1..];
        }
        self.0.extend_from_slice(text);
        self.raw("\"");
    }

    /// Writes items and the closing bracket.
    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut Self, T)) {
        for (index, value) in items.into_iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            item(self, value);
        }
        self.raw("]");
    }
}
