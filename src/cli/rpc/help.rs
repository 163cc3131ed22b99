//! What there is to call, and what it takes.

use std::fmt::Write;

use super::config::COMMANDS;
use crate::rpc::methods::{self, Method, When};

/// Most names that are told instead of an unknown one.
const LIKE: usize = 8;

/// All methods, or what is known of those that are named.
///
/// # Errors
/// A name that no method has, with those that are like it.
pub(super) fn text(names: &[String]) -> Result<String, String> {
    let mut text = String::new();
    if names.is_empty() {
        let own = COMMANDS.iter().map(|(name, _, help)| (*name, *help));
        let all = own.chain(methods::all().map(|m| (m.name, m.help)));
        for (name, help) in all {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name}\n    {help}.");
        }
        return Ok(text);
    }
    for name in names {
        text += &one(name)?;
    }
    Ok(text)
}

fn one(name: &str) -> Result<String, String> {
    if let Some((name, params, help)) = COMMANDS.iter().find(|(known, ..)| *known == name) {
        return Ok(format!("{name}{}\n    {help}.\n", words(params)));
    }
    let method = methods::find(name).ok_or_else(|| unknown(name))?;
    Ok(describe(method))
}

fn describe(method: &Method) -> String {
    let mut text = format!(
        "{}{}\n    {}.\n",
        method.name,
        words(method.params),
        method.help
    );
    let when = match method.when {
        When::Startup => {
            "    Only before the start is complete (serve --wait-for-rpc, serve -c).\n"
        }
        When::Runtime => "",
        When::Always => "    Before the start is complete, too.\n",
    };
    text += when;
    if !method.aliases.is_empty() {
        let _ = writeln!(text, "    Also called {}.", method.aliases.join(", "));
    }
    text
}

/// The parameters as they are written; those that may be left out in brackets.
fn words(params: &[&str]) -> String {
    let word = |param: &&str| match param.strip_suffix('?') {
        Some(name) => format!(" [{name}=..]"),
        None => format!(" {param}=.."),
    };
    params.iter().map(word).collect()
}

/// That there is no such method, with those that share most of its words.
fn unknown(name: &str) -> String {
    let shared = |m: &Method| {
        let words = m.name.split('_');
        words
            .filter(|word| name.split('_').any(|w| w == *word))
            .count()
    };
    let most = methods::all().map(shared).max().unwrap_or(0);
    if most == 0 {
        return format!("there is no method {name}; `stripewise rpc help` lists what there is");
    }
    let like = methods::all().filter(|m| shared(m) == most);
    let like: Vec<&str> = like.map(|m| m.name).take(LIKE).collect();
    format!("there is no method {name}; there is {}", like.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Result<String, String> {
        text(&names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_method_is_listed_and_described() {
        let all = of(&[]).unwrap();
        for method in methods::all() {
            assert!(all.contains(&format!("{}\n", method.name)));
        }
        let create = of(&["bdev_malloc_create"]).unwrap();
        assert!(
            create.starts_with("bdev_malloc_create [name=..] num_blocks=.. block_size=.."),
            "{create}"
        );
        assert!(create.contains("construct_malloc_bdev"), "{create}");
        assert!(of(&["save_subsystem_config"]).unwrap().contains(" name=.."));
    }

    #[test]
    fn a_name_that_is_none_is_told_with_those_that_are_like_it() {
        let error = of(&["bdev_malloc_make"]).unwrap_err();
        assert!(error.contains("bdev_malloc_create"), "{error}");
        assert!(of(&["x"]).unwrap_err().contains("rpc help"));
    }
}
