//! The table of error codes, and the page for users that is generated from it.

use expect_test::expect_file;
use lifecycle::Code;
use std::fmt::Write;

#[test]
fn the_name_of_each_variant_is_its_text_without_the_dot_and_they_are_sorted() {
    let texts: Vec<&str> = Code::ALL.iter().map(Code::as_str).collect();
    assert!(texts.is_sorted(), "{texts:?}");
    for code in Code::ALL {
        assert_eq!(format!("{code:?}"), code.as_str().replace('.', ""));
        assert_eq!(code.as_str().matches('.').count(), 1, "{code}");
        assert_eq!(&Code::read(code.as_str()), code);
    }
}

#[test]
fn a_code_of_another_system_or_version_keeps_its_text() {
    for text in ["States.Timeout", "Lambda.SdkClientException", "Session.OfTomorrow", ""] {
        let code = Code::read(text);
        assert!(matches!(code, Code::Other(_)), "{code:?}");
        assert_eq!(
            (code.as_str(), code.explain(), code.is_worth_a_retry()),
            (text, None, false)
        );
    }
}

#[test]
fn the_page_of_errors_is_the_table_of_codes() {
    let mut page = String::from(
        "# Errors\n\n\
         Each error of pfsession has a code, which no version changes: in JSON it is `error`, on the\n\
         command line it stands in brackets. The text beside it names the file, the line or the value.\n\
         *Final* means that the same request fails until something is changed; *retry* that it may\n\
         succeed later. A code that is not here comes from Step Functions, Lambda or another version.\n\n\
         This page is generated from `shared/lifecycle/src/code.rs`.\n",
    );
    let mut area = "";
    for code in Code::ALL {
        let (meaning, remedy) = code.explain().expect("it is of this version");
        let of = code.as_str().split('.').next().expect("an area");
        if of != area {
            area = of;
            write!(
                page,
                "\n## {area}\n\n| code | meaning | again | what to do |\n| --- | --- | --- | --- |\n"
            )
            .expect("text");
        }
        let again = if code.is_worth_a_retry() { "retry" } else { "final" };
        writeln!(page, "| `{code}` | {meaning} | {again} | {remedy} |").expect("text");
    }
    expect_file!["../ERRORS.md"].assert_eq(&page);
}
