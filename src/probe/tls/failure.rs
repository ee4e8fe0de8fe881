//! What an error of TLS means to a person: each class is something else to do. Pure.

use crate::probe::Failure;
use rustls::{AlertDescription as Alert, CertificateError, Error, InvalidMessage};

impl Failure {
    /// The class of an error of TLS.
    pub fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => of_certificate(error),
            Error::AlertReceived(alert) => of_alert(*alert),
            Error::PeerIncompatible(_) => Self::TlsVersion,
            // The first bytes that came are no record of TLS.
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::TlsNotSpoken,
            _ => Self::TlsHandshake,
        }
    }

    /// A host that refuses the certificate that it was shown may also mean that it was shown none.
    #[must_use]
    pub fn without_identity(self) -> Self {
        if self == Self::TlsIdentityRefused { Self::TlsIdentityWanted } else { self }
    }
}

fn of_certificate(error: &CertificateError) -> Failure {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Failure::TlsExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Failure::TlsNotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Failure::TlsWrongName
        }
        // A wrong signature is an authority's that has the known one's name and another key: one that was made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Failure::TlsUnknownIssuer,
        _ => Failure::TlsBadCertificate,
    }
}

/// What the host says about us.
fn of_alert(alert: Alert) -> Failure {
    match alert {
        Alert::CertificateRequired | Alert::NoCertificate => Failure::TlsIdentityWanted,
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::DecryptError => Failure::TlsIdentityRefused,
        Alert::ProtocolVersion | Alert::InsufficientSecurity => Failure::TlsVersion,
        Alert::UnrecognisedName => Failure::TlsWrongName,
        // Among them the handshake failure that old servers send for all of the above.
        _ => Failure::TlsHandshake,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use rustls::{PeerIncompatible, PeerMisbehaved};

    #[rstest]
    #[case(Error::InvalidCertificate(CertificateError::Expired), Failure::TlsExpired)]
    #[case(Error::InvalidCertificate(CertificateError::NotValidYet), Failure::TlsNotYetValid)]
    #[case(Error::InvalidCertificate(CertificateError::NotValidForName), Failure::TlsWrongName)]
    #[case(Error::InvalidCertificate(CertificateError::UnknownIssuer), Failure::TlsUnknownIssuer)]
    #[case(Error::InvalidCertificate(CertificateError::BadSignature), Failure::TlsUnknownIssuer)]
    #[case(Error::InvalidCertificate(CertificateError::Revoked), Failure::TlsBadCertificate)]
    #[case(Error::InvalidCertificate(CertificateError::BadEncoding), Failure::TlsBadCertificate)]
    #[case(Error::InvalidCertificate(CertificateError::InvalidPurpose), Failure::TlsBadCertificate)]
    #[case(Error::AlertReceived(Alert::CertificateRequired), Failure::TlsIdentityWanted)]
    #[case(Error::AlertReceived(Alert::UnknownCA), Failure::TlsIdentityRefused)]
    #[case(Error::AlertReceived(Alert::CertificateExpired), Failure::TlsIdentityRefused)]
    #[case(Error::AlertReceived(Alert::ProtocolVersion), Failure::TlsVersion)]
    #[case(Error::AlertReceived(Alert::UnrecognisedName), Failure::TlsWrongName)]
    #[case(Error::AlertReceived(Alert::HandshakeFailure), Failure::TlsHandshake)]
    #[case(Error::AlertReceived(Alert::Unknown(250)), Failure::TlsHandshake)]
    #[case(
        Error::PeerIncompatible(PeerIncompatible::ServerSentHelloRetryRequestWithUnknownExtension),
        Failure::TlsVersion
    )]
    #[case(Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments), Failure::TlsHandshake)]
    #[case(Error::InvalidMessage(InvalidMessage::InvalidContentType), Failure::TlsNotSpoken)]
    #[case(Error::InvalidMessage(InvalidMessage::MessageTooShort), Failure::TlsHandshake)]
    #[case(Error::General("x".into()), Failure::TlsHandshake)]
    fn each_error_is_something_to_do(#[case] error: Error, #[case] class: Failure) {
        assert_eq!(Failure::of_tls(&error), class);
    }

    #[test]
    fn a_refusal_of_nothing_is_a_wish_for_something() {
        assert_eq!(Failure::TlsIdentityRefused.without_identity(), Failure::TlsIdentityWanted);
        assert_eq!(Failure::TlsExpired.without_identity(), Failure::TlsExpired);
    }
}
