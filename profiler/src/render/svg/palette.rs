//! Colours by kind of frame, told apart by colour-blind readers too.
//!
//! Own code is the one strong, warm colour, because it is what the reader looks for. Warm against
//! blue survives every common colour blindness, and lightness separates the rest.

use inferno::flamegraph::color::Color;

use crate::render::folded::FieldKind;

/// The colour of a kind.
pub const fn color(kind: FieldKind) -> Color {
    match kind {
        FieldKind::Own => rgb(0xf5, 0xa6, 0x3d),
        FieldKind::OwnInlined => rgb(0xfa, 0xcb, 0x86),
        FieldKind::Library => rgb(0xd6, 0xd0, 0xc2),
        FieldKind::LibraryInlined => rgb(0xe9, 0xe5, 0xdb),
        FieldKind::Generated => rgb(0x8f, 0xcf, 0xb3),
        FieldKind::Kernel => rgb(0x94, 0xbf, 0xe8),
        FieldKind::Absent => rgb(0xe3, 0xb3, 0xd3),
        FieldKind::Group => rgb(0xff, 0xff, 0xff),
    }
}

/// What the legend calls a kind.
pub const fn name(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Own => "own code",
        FieldKind::OwnInlined => "own code, inlined",
        FieldKind::Library => "libraries",
        FieldKind::LibraryInlined => "libraries, inlined",
        FieldKind::Generated => "generated code",
        FieldKind::Kernel => "kernel",
        FieldKind::Absent => "no name or no stack",
        FieldKind::Group => "pool, role, state",
    }
}

const fn rgb(r: u8, g: u8, b: u8) -> Color {
    Color { r, g, b }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance of WCAG 2.1.
    fn luminance(color: Color) -> f64 {
        let linear = |channel: u8| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(color.r) + 0.7152 * linear(color.g) + 0.0722 * linear(color.b)
    }

    #[test]
    fn black_text_is_readable_on_every_colour() {
        for kind in [
            FieldKind::Own,
            FieldKind::OwnInlined,
            FieldKind::Library,
            FieldKind::LibraryInlined,
            FieldKind::Generated,
            FieldKind::Kernel,
            FieldKind::Absent,
            FieldKind::Group,
        ] {
            let contrast = (luminance(color(kind)) + 0.05) / 0.05;
            assert!(contrast >= 7.0, "{kind:?}: {contrast:.1}");
        }
    }
}
