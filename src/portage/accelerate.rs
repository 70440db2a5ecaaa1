//! The helpers of compilers as Portage's configuration: ccache, distcc, and a jobserver that all packages share.
//!
//! None of them may change a result. So ccache gets no base directory, which would turn the paths that a compiler records into relative
//! ones, and its objects depend on the content of the compiler and the assembler.

use std::path::{Path, PathBuf};

use super::BuilderInfo;
use crate::base::error::{Error, Result};
use crate::recipe::{Job, Jobserver};

/// `CCACHE_DIR`.
pub const CCACHE_DIR: &str = "/var/cache/ccache";
/// The FIFO of the jobserver.
pub const JOBS: &str = "/run/quern-jobs";
/// The group of Portage's user, which opens the FIFO and writes to the cache.
pub const GROUP: u32 = 250;

/// The first GNU make that uses a FIFO.
const MAKE_WITH_FIFO: [u32; 2] = [4, 4];
/// The first version of Portage that takes a job of the jobserver for each package.
const WITH_TOKENS: [u32; 3] = [3, 0, 74];
/// The directories below `/usr` where Portage looks for the links of a wrapper, in its order. `{}` is the name.
const LINKS: [&str; 6] =
    ["usr/lib64/{}/bin", "usr/lib/{}/bin", "usr/libexec/{}/bin", "usr/lib64/{}", "usr/lib/{}", "usr/libexec/{}"];

/// The script that [`Tools::parse`] reads the output of.
pub const ASK_TOOLS: &str = "make --version | head -n 1
for tool in cc1 cc1plus as; do command -v \"$(gcc -print-prog-name=$tool)\"; done";

/// Facts about the tools of the builder that the configuration depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The number of jobs that all packages share, if there is a jobserver.
    pub jobserver: Option<u32>,
    /// The version of GNU make.
    make: Option<[u32; 2]>,
    /// The programs that a compiler runs.
    compiler: Vec<PathBuf>,
}

impl Tools {
    /// Facts about a builder that was not asked.
    pub const UNKNOWN: Self = Self { jobserver: None, make: None, compiler: Vec::new() };

    /// Reads the output of [`ASK_TOOLS`] in the builder of `job` on a machine with `cpus` processors. The output is untrusted.
    pub fn parse(output: &[u8], job: &Job, cpus: u32) -> Self {
        let text = String::from_utf8_lossy(output);
        let mut lines = text.lines();
        let make = lines.next().and_then(make_version);
        let jobs = match job.accelerate.jobserver {
            Jobserver::Off => None,
            Jobserver::Auto => Some(cpus.max(1)),
            Jobserver::Jobs(jobs) => Some(jobs),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
        let compiler = lines.take(3).filter(|line| line.starts_with('/') && line.chars().all(plain)).map(PathBuf::from);
        Self { jobserver: jobs.filter(|_| make >= Some(MAKE_WITH_FIFO)), make, compiler: compiler.collect() }
    }

    /// Returns a sentence if the recipe wants a jobserver and make is too old for it.
    pub fn without_jobserver(&self, job: &Job) -> Option<String> {
        if job.accelerate.jobserver == Jobserver::Off || self.jobserver.is_some() {
            return None;
        }
        let found = self.make.map_or("another make".to_owned(), |[major, minor]| format!("GNU make {major}.{minor}"));
        Some(format!(
            "the builder has {found}, and a jobserver needs 4.4: each package starts as many jobs as MAKEOPTS says"
        ))
    }
}

/// Parses the first line of `make --version`.
fn make_version(line: &str) -> Option<[u32; 2]> {
    let mut parts = line.strip_prefix("GNU Make ")?.split('.').map(|part| part.trim().parse().ok());
    Some([parts.next()??, parts.next()??])
}

/// Returns true if the configuration or the statistics need to ask the builder.
pub fn asks(job: &Job) -> bool {
    job.accelerate.ccache.is_some() || job.accelerate.jobserver != Jobserver::Off
}

/// Returns the FEATURES of the helpers.
pub(super) fn features(job: &Job, info: &BuilderInfo) -> Vec<&'static str> {
    let mut features = Vec::new();
    if job.accelerate.ccache.is_some() {
        features.push("ccache");
    }
    if !job.accelerate.distcc.is_empty() {
        features.push("distcc");
    }
    if info.tools.jobserver.is_some() && info.portage.is_some_and(|version| version >= WITH_TOKENS) {
        features.push("jobserver-token");
    }
    features
}

/// Returns the variables of make.conf for the helpers and the number of jobs.
pub(super) fn variables(job: &Job, info: &BuilderInfo) -> Vec<(&'static str, String)> {
    let load = job.emerge.load_average.map(|load| format!(" -l{load}")).unwrap_or_default();
    let mut variables = match info.tools.jobserver {
        // A stage3 may set MAKEOPTS, whose jobs would not be shared.
        Some(_) => vec![("MAKEOPTS", String::new()), ("MAKEFLAGS", format!("--jobserver-auth=fifo:{JOBS}{load}"))],
        None => vec![("MAKEOPTS", format!("-j{}{load}", info.cpus.max(1)))],
    };
    if let Some(ccache) = &job.accelerate.ccache {
        variables.push(("CCACHE_DIR", CCACHE_DIR.to_owned()));
        // Every unpacked compiler has other times.
        variables.push(("CCACHE_COMPILERCHECK", "content".to_owned()));
        let programs: Vec<_> = info.tools.compiler.iter().map(|path| path.to_string_lossy()).collect();
        if !programs.is_empty() {
            variables.push(("CCACHE_EXTRAFILES", programs.join(":")));
        }
        // Both root and Portage's user write to it.
        variables.push(("CCACHE_UMASK", "002".to_owned()));
        if let Some(size) = ccache.max_size {
            variables.push(("CCACHE_MAXSIZE", format!("{}Ki", size.div_ceil(1024))));
        }
    }
    if !job.accelerate.distcc.is_empty() {
        variables.push(("DISTCC_HOSTS", job.accelerate.distcc.join(" ")));
    }
    variables
}

/// Checks that the builder can use the helpers. `exists` tells whether it has a path, `contains` whether a file of it contains a text.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) with the package that is missing.
pub fn check(
    job: &Job,
    exists: impl Fn(&Path) -> Result<bool>,
    contains: impl Fn(&Path, &str) -> Result<bool>,
) -> Result<()> {
    let linked = |name: &str| -> Result<bool> {
        LINKS.iter().try_fold(false, |found, path| Ok(found || exists(Path::new(&path.replace("{}", name)))?))
    };
    let missing = |name: &str, package: &str| {
        Error::usage(format!(
            "accelerate.{name}: the builder has no links for {name} in /usr/lib/{name}/bin, so Portage would not use it"
        ))
        .with_hint(format!(
            "take a stage3 with {package}, add {package} with build.unblocker-profile, or leave the key out"
        ))
    };
    if job.accelerate.ccache.is_some() && !linked("ccache")? {
        return Err(missing("ccache", "dev-util/ccache"));
    }
    if job.accelerate.distcc.is_empty() {
        return Ok(());
    }
    if !linked("distcc")? {
        return Err(missing("distcc", "sys-devel/distcc"));
    }
    let features = job.portage.make_conf.get("FEATURES").map(String::as_str).unwrap_or_default();
    let open = features.split_whitespace().any(|feature| feature == "-network-sandbox");
    if !open && !contains(Path::new("usr/bin/distcc"), "DISTCC_SOCKS_PROXY")? {
        return Err(Error::usage(
            "accelerate.distcc: the builder's distcc cannot leave Portage's network sandbox (it does not know \
             DISTCC_SOCKS_PROXY), so it would compile everything on this machine",
        )
        .with_hint(
            "take a builder with Gentoo's own distcc, or set FEATURES = \"-network-sandbox\" in portage.make-conf, which gives \
             every package a network",
        ));
    }
    Ok(())
}

/// Refuses the flags of compilers, as Portage knows them, if they are for this machine's processor. distcc compiles on others.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage).
pub fn check_flags(flags: &str) -> Result<()> {
    if !flags.contains("=native") {
        return Ok(());
    }
    Err(Error::usage("accelerate.distcc: the compiler flags say `native`, and distcc compiles on other processors").with_hint(
        "set COMMON_FLAGS in portage.make-conf with the processor's name in place of `native`, for example -march=x86-64-v3",
    ))
}

/// Returns warnings about helpers that a recipe switches on in FEATURES alone.
pub(super) fn warnings(job: &Job) -> Vec<String> {
    let features = job.portage.make_conf.get("FEATURES").map(String::as_str).unwrap_or_default();
    let named = |name: &str| features.split_whitespace().any(|feature| feature == name);
    let mut warnings = Vec::new();
    if named("ccache") && job.accelerate.ccache.is_none() {
        warnings
            .push("FEATURES has ccache, but its cache ends with the build: write accelerate.ccache = true".to_owned());
    }
    if named("distcc") && job.accelerate.distcc.is_empty() {
        warnings.push("FEATURES has distcc, and may compile on this machine only: write accelerate.distcc".to_owned());
    }
    for name in ["icecream", "distcc-pump"].into_iter().filter(|name| named(name)) {
        warnings.push(format!(
            "FEATURES has {name}, which does not work in a build: everything is compiled on this machine"
        ));
    }
    warnings
}

/// Counts of compilations, as `ccache --print-stats` prints them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    hits: u64,
    misses: u64,
    /// Compilations that ccache gave up on.
    failures: u64,
}

/// The names of counts of failures.
const FAILURES: [&str; 5] = [
    "internal_error",
    "compiler_check_failed",
    "error_hashing_extra_file",
    "bad_output_file",
    "could_not_find_compiler",
];

impl Statistics {
    /// Parses the output of `ccache --print-stats`, which is untrusted. Unknown lines do not count.
    pub fn parse(output: &[u8]) -> Self {
        let mut counts = Self::default();
        for line in String::from_utf8_lossy(output).lines() {
            let Some((name, value)) = line.split_once('\t') else { continue };
            let value: u64 = value.trim().parse().unwrap_or(0);
            match name {
                "direct_cache_hit" | "preprocessed_cache_hit" => counts.hits = counts.hits.saturating_add(value),
                "cache_miss" => counts.misses = counts.misses.saturating_add(value),
                name if FAILURES.contains(&name) => counts.failures = counts.failures.saturating_add(value),
                _ => {}
            }
        }
        counts
    }

    /// Returns a sentence about the compilations since `before`.
    pub fn since(self, before: Self) -> String {
        let (hits, misses) = (self.hits.saturating_sub(before.hits), self.misses.saturating_sub(before.misses));
        let all = hits.saturating_add(misses);
        let mut sentence = match all {
            0 => "ccache: nothing was compiled with it".to_owned(),
            _ => {
                let percent = u128::from(hits) * 100 / u128::from(all);
                format!("ccache: {hits} of {all} compilations came from the cache ({percent} %)")
            }
        };
        match self.failures.saturating_sub(before.failures) {
            0 => {}
            failures => sentence += &format!("; it gave up on {failures}"),
        }
        sentence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portage::fixture::job;
    use crate::recipe::Ccache;

    const INFO: BuilderInfo =
        BuilderInfo { sandbox: true, cpus: 4, portage: Some([3, 0, 83]), date: None, tools: Tools::UNKNOWN };

    #[test]
    fn a_builder_without_a_helper_is_refused() {
        let mut job = job(Vec::new());
        check(&job, |_| panic!("asked"), |_, _| panic!("asked")).unwrap();
        job.accelerate.ccache = Some(Ccache::default());
        let error = check(&job, |_| Ok(false), |_, _| Ok(true)).unwrap_err();
        assert!(error.to_string().starts_with("accelerate.ccache: the builder has no links for ccache"), "{error}");
        assert!(error.hint().unwrap().contains("dev-util/ccache"));
        for place in ["usr/lib/ccache/bin", "usr/lib64/ccache/bin", "usr/lib/ccache"] {
            check(&job, |path| Ok(path == Path::new(place)), |_, _| Ok(false)).unwrap();
        }
        job.accelerate = crate::recipe::Accelerate { distcc: vec!["192.0.2.7".into()], ..Default::default() };
        let error = check(&job, |_| Ok(false), |_, _| Ok(true)).unwrap_err();
        assert!(error.hint().unwrap().contains("sys-devel/distcc"));
        let error = check(&job, |_| Ok(true), |_, _| Ok(false)).unwrap_err();
        assert!(error.to_string().contains("DISTCC_SOCKS_PROXY"), "{error}");
        check(&job, |_| Ok(true), |_, text| Ok(text == "DISTCC_SOCKS_PROXY")).unwrap();
        check_flags("-O2 -mtune=generic\n").unwrap();
        assert!(check_flags("-O2 -march=native\n").is_err());
        job.portage.make_conf.insert("FEATURES".into(), "-network-sandbox".into());
        check(&job, |_| Ok(true), |_, _| Ok(false)).unwrap();
    }

    #[test]
    fn a_jobserver_needs_a_new_make() {
        let mut job = job(Vec::new());
        job.accelerate.jobserver = Jobserver::Auto;
        let tools = Tools::parse(b"GNU Make 4.4.1\n/usr/libexec/gcc/cc1\n/a b\n/usr/bin/as\n", &job, 4);
        assert_eq!(tools.jobserver, Some(4));
        assert_eq!(tools.compiler, ["/usr/libexec/gcc/cc1", "/usr/bin/as"].map(PathBuf::from));
        assert_eq!(tools.without_jobserver(&job), None);
        let info = BuilderInfo { tools, ..INFO };
        let shared = [("MAKEOPTS", String::new()), ("MAKEFLAGS", format!("--jobserver-auth=fifo:{JOBS}"))];
        assert_eq!(variables(&job, &info), shared);
        assert_eq!(features(&job, &info), ["jobserver-token"]);
        assert_eq!(features(&job, &BuilderInfo { portage: Some([3, 0, 60]), ..info.clone() }), Vec::<&str>::new());

        let old = Tools::parse(b"GNU Make 4.3\n", &job, 4);
        assert!(old.without_jobserver(&job).unwrap().starts_with("the builder has GNU make 4.3, and"));
        job.emerge.load_average = Some(6);
        assert_eq!(variables(&job, &BuilderInfo { tools: old, ..INFO }), [("MAKEOPTS", "-j4 -l6".to_owned())]);
        assert!(Tools::parse(b"\xff\n", &job, 1).without_jobserver(&job).unwrap().contains("another make"));
    }

    #[test]
    fn statistics_are_those_of_one_build() {
        let before = Statistics::parse(b"cache_miss\t10\ndirect_cache_hit\t1\n");
        let after = Statistics::parse(b"x\ncache_miss\t11\npreprocessed_cache_hit\t2\ndirect_cache_hit\t20\n");
        assert_eq!(after.since(before), "ccache: 21 of 22 compilations came from the cache (95 %)");
        assert_eq!(before.since(after), "ccache: nothing was compiled with it");
        let failed = Statistics::parse(b"error_hashing_extra_file\t7\ndirect_cache_hit\tx\n");
        assert_eq!(failed.since(Statistics::default()), "ccache: nothing was compiled with it; it gave up on 7");
        let huge = Statistics::parse(b"direct_cache_hit\t18446744073709551615\npreprocessed_cache_hit\t9\n");
        assert!(huge.since(Statistics::default()).contains("(100 %)"));
    }

    #[test]
    fn helpers_in_features_alone_are_warned_about() {
        let mut job = job(Vec::new());
        job.portage.make_conf.insert("FEATURES".into(), "ccache distcc icecream -distcc-pump".into());
        assert_eq!(warnings(&job).len(), 3);
        job.accelerate.ccache = Some(Ccache::default());
        assert_eq!(warnings(&job).len(), 2);
    }
}
