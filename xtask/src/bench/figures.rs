//! The program `figures` of the library, in a folder of its own: it prints one figure.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::stats::median;
use crate::workspace::{self, output};

pub(super) struct Figures(PathBuf);

impl Figures {
    pub(super) fn build() -> Result<Figures> {
        Ok(Figures(workspace::figures()?))
    }

    /// The figure that it prints first in this role.
    pub(super) fn of(&self, role: &[&str]) -> Result<f64> {
        let text = self.said(role)?;
        let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
        first.with_context(|| format!("{role:?} printed {text:?}"))
    }

    /// All that it prints in this role.
    pub(super) fn said(&self, role: &[&str]) -> Result<String> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir().context("cannot make a folder")?;
        let mut command = Command::new(&self.0);
        // It would choose an environment.
        command.arg(folder.path()).args(role).env_remove("env");
        Ok(String::from_utf8(output(&mut command)?)?)
    }

    /// Medians of so many rounds, in each of which all roles have their turn.
    pub(super) fn medians<const N: usize>(&self, roles: [&[&str]; N], rounds: usize) -> Result<[f64; N]> {
        let mut samples = [const { Vec::new() }; N];
        for _ in 0..rounds {
            for (samples, role) in samples.iter_mut().zip(roles) {
                samples.push(self.of(role)?);
            }
        }
        Ok(samples.map(|samples| median(&samples)))
    }
}
