//! Pages, JSON API and live logs.
