//! What holds for any config, however it is formatted or broken.

use balance_user::config::save::set_weight;
use proptest::prelude::*;

use super::errors::assert_points_into;
use super::{SAMPLE, parse};

/// Text around values, as people and editors leave it.
fn space() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", " ", "\t", "    "])
}

fn comment() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "# weight = 7", "  # Größe: 3 | name = \"A\"", "\t#", "   "])
}

fn weight() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["1", "+3", "0x1f", "1_000", "0b101", "0o17"])
}

prop_compose! {
    /// A config with ISPs A, B and C in some formatting; of B, what is before the weight, the weight, what is after.
    fn formatted()(
        newline in prop::sample::select(vec!["\n", "\r\n"]),
        bom in any::<bool>(),
        order in Just(["name", "device", "weight"]).prop_shuffle(),
        quote in prop::sample::select(vec!["\"", "'", "\"\"\"", "'''"]),
        quoted_keys in any::<bool>(),
        spaces in [space(), space(), space(), space()],
        comments in [comment(), comment(), comment(), comment()],
        old in weight(),
        final_newline in any::<bool>(),
    ) -> (String, String, String) {
        let [left, around, right, indent] = spaces;
        let [first, second, third, of_header] = comments;
        let bom = if bom { "\u{feff}" } else { "" };
        let mut before = vec![
            format!("{bom}# head{newline}[[isp]]{newline}name = 'A'{newline}device='a'{newline}weight=3{newline}"),
            format!("{indent}[[isp]]{of_header}{newline}{newline}"),
        ];
        let mut after = Vec::new();
        let mut past_the_weight = false;
        for (key, comment) in order.into_iter().zip([first, second, third]) {
            let shown = if quoted_keys { format!("\"{key}\"") } else { key.to_owned() };
            let head = format!("{left}{shown}{around}={right}");
            let tail = format!("{comment}{newline}");
            if key == "weight" {
                before.push(head);
                after.push(tail);
                past_the_weight = true;
                continue;
            }
            let value = if key == "name" { "B" } else { "b" };
            let line = format!("{head}{quote}{value}{quote}{tail}");
            if past_the_weight { after.push(line) } else { before.push(line) }
        }
        let end = if final_newline { newline } else { "" };
        after.push(format!("[isp.monitor]{newline}quorum = 1{newline}"));
        after.push(format!("[[isp]]{newline}weight=3{newline}device='c'{newline}name = 'C'{end}"));
        (before.concat(), old.to_owned(), after.concat())
    }
}

proptest! {
    #[test]
    fn set_weight_keeps_every_other_byte_in_any_formatting(
        (before, old, after) in formatted(),
        weight in 1u16..=1000,
    ) {
        let text = format!("{before}{old}{after}");
        parse(&text).unwrap();
        let changed = set_weight(&text, "B", weight).unwrap();
        prop_assert_eq!(&changed, &format!("{before}{weight}{after}"));
        prop_assert_eq!(parse(&changed).unwrap().isps[1].weight, weight);
    }

    #[test]
    fn an_added_weight_changes_the_meaning_only_where_it_should(
        (before, _, after) in formatted(),
        weight in 1u16..=1000,
    ) {
        // Without the line of the weight: from the last newline before it to the first one after.
        let above = &before[..=before.rfind('\n').unwrap()];
        let below = &after[after.find('\n').unwrap() + 1..];
        let text = format!("{above}{below}");
        let changed = set_weight(&text, "B", weight).unwrap();
        let mut expected = parse(&text).unwrap();
        expected.isps[1].weight = weight;
        prop_assert_eq!(parse(&changed).unwrap(), expected);
        // Taking the new line out gives the old text.
        let lines: Vec<_> = changed.split_inclusive('\n').collect();
        let line = (0..lines.len()).find(|&line| {
            lines[line].trim() == format!("weight = {weight}")
                && [&lines[..line], &lines[line + 1..]].concat().concat() == text
        });
        prop_assert!(line.is_some(), "{}", changed);
    }

    #[test]
    fn no_mutation_of_the_sample_makes_it_panic_or_point_nowhere(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, edit()), 1..6),
    ) {
        let mut text = SAMPLE.to_owned();
        for (index, remove, insert) in edits {
            let start = text.floor_char_boundary(index.index(text.len() + 1));
            let end = text.floor_char_boundary(start + remove).max(start);
            text.replace_range(start..end, &insert);
        }
        if let Err(error) = parse(&text) {
            assert_points_into(&error, &text);
        }
        drop(set_weight(&text, "CABLE", 5));
    }

    #[test]
    fn no_text_at_all_makes_it_panic(text in "(\\PC|[\n\r\t\u{0}\"'\\[\\]{}=.#,0-9x]){0,80}") {
        if let Err(error) = parse(&text) {
            assert_points_into(&error, &text);
        }
        drop(set_weight(&text, "CABLE", 5));
    }

    #[test]
    fn no_value_makes_it_panic(
        key in prop::sample::select(vec![
            "name", "device", "weight", "tier", "gateway", "targets", "monitor.interval", "monitor.quorum",
            "monitor.resolvers",
        ]),
        value in prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            "[0-9a-f:.]{0,20}".prop_map(|s| format!("\"{s}\"")),
            "[0-9. a-zµ]{0,20}".prop_map(|s| format!("\"{s}\"")),
            "[0-9a-f:.]{0,20}".prop_map(|s| format!("[\"{s}\", \"{s}\"]")),
            "(tcp|http|https|dns|x)://[0-9a-f:.@/\\[\\]]{0,20}".prop_map(|s| format!("[\"{s}\"]")),
            "(tcp|url|ping|dns) = '[0-9a-z:./]{0,20}'(, name = 'a'|, status = 200|)".prop_map(|s| format!("[{{ {s} }}]")),
            "0x[0-9a-f]{1,40}",
            "\\PC{0,10}".prop_map(|s| format!("'{s}'")),
        ],
    ) {
        let rest = if key == "name" { "device = 'a'" } else if key == "device" { "name = 'A'" } else { "name='A'\ndevice='a'" };
        let text = format!("[[isp]]\n{rest}\n{key} = {value}\n");
        if let Err(error) = parse(&text) {
            assert_points_into(&error, &text);
            prop_assert!(error.fault().unwrap().line > 1, "{}", error);
        }
    }
}

fn edit() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        prop::sample::select(vec![
            "\n",
            "\r",
            "\r\n",
            "\t",
            "\"",
            "'",
            "\"\"\"",
            "[",
            "]",
            "[[",
            "]]",
            "{",
            "}",
            "=",
            ".",
            ",",
            "#",
            "-",
            "+",
            "0x",
            "99999999999999999999",
            "é",
            "\u{feff}",
            "\u{0}",
            "\u{1b}[2J",
            "nan",
            "true",
            "1979-05-27",
            "\\u00",
            "[[isp]]\n",
            "[isp]\n",
            "name",
            "weight = ",
            "10.0.0.0/33",
            "::ffff:1.2.3.4",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,5}",
    ]
}
