//! Recipes with many steps.

use super::{EPOCH, Stand, text};
use crate::env::Privilege;

/// More steps than an overlay takes as layers.
const MANY: usize = 450;

#[test]
fn root_many_steps_make_the_image_of_one_step() {
    let Some(mut stand) = Stand::sharing(Privilege::Root) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let command = |number: usize| {
        let (gone, directory) = (number.saturating_sub(7), number % 10);
        format!(
            "mkdir -p /many/{directory}; echo {number} | tee /many/last > /many/{directory}/{number}; rm -f /many/{directory}/{gone}"
        )
    };
    let step = |name: &str, run: &str| format!("[[step]]\nname = \"{name}\"\nrun = '''\n{run}\n'''\n");
    let head = "kind = \"stage4\"\n[emerge]\npackages = []\n";
    let steps: String = (0..MANY).map(|number| step(&format!("step-{number}"), &command(number))).collect();
    let many = stand.recipe("many", &format!("{head}{steps}"));
    let built = stand.build_changed(&many).success();
    let of_many = std::fs::read(&built.results()[0]).unwrap();
    let all: Vec<String> = (0..MANY).map(command).collect();
    let one = stand.built(&stand.recipe("many-at-once", &format!("{head}{}", step("all", &all.join("\n")))));
    assert!(std::fs::read(&one[0]).unwrap() == of_many, "the images differ");
    let cached = stand.env.run(["build", text(&many), "--until", &format!("step-{}", MANY - 1)]).success();
    assert!(cached.stderr.contains(&format!("{MANY} of {MANY} steps are cached")), "{}", cached.stderr);
}
