"""200 constructed confirmation mails in ten languages, and 50 that hold no code; not real mail, which is private.

Each language has its own words, written as a sender would. Each shape puts them together as a kind of sender does, with
what else such mail has: order numbers, telephone numbers, years, prices, addresses, links to privacy and unsubscribe.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Mail(NamedTuple):
    """subject, html: as sent. wanted: the code or URL to be found; None if there is none."""

    name: str
    subject: str
    html: str
    wanted: str | None


class Words(NamedTuple):
    """The sentences of one language. {} is the code; the others have none."""

    greeting: str
    subject: str  # about a code, without it
    subject_with: str
    code_is: str
    is_code: str
    enter: str  # asks for the code that stands in the next lines
    label: str
    expires: str
    warning: str
    confirm_subject: str
    confirm: str  # asks to follow a link
    button: str
    reset: str
    order: str  # with a number
    phone: str
    address: str
    unsubscribe: str
    privacy: str
    promo: str  # a code for a discount


LANGUAGES = {
    "en": Words(
        "Hello Anna,", "Your verification code", "{} is your login code", "Your verification code is {}.",
        "{} is your one-time password.", "Please enter this code to finish signing in:", "Security code",
        "The code expires in 10 minutes.", "Never share this code with anyone. Our staff will not ask for it.",
        "Confirm your email address", "Thanks for signing up in 2026. Please confirm your address to activate the account.",
        "Confirm email", "Reset your password", "Order number: 48213344", "Call us: +1 800 555 0199",
        "Example Inc., 2150 Market Street, San Francisco, CA 94114", "Unsubscribe", "Privacy policy",
        "Use code SAVE20 at checkout for 20% off your next order.",
    ),
    "de": Words(
        "Guten Tag Anna,", "Ihr Bestätigungscode", "{} ist Ihr Anmeldecode", "Ihr Bestätigungscode lautet: {}",
        "{} ist dein Einmalpasswort.", "Bitte geben Sie den folgenden Code ein, um die Anmeldung abzuschließen:", "Sicherheitscode",
        "Der Code ist 10 Minuten gültig.", "Geben Sie den Code niemals weiter.",
        "Bitte bestätigen Sie Ihre E-Mail-Adresse", "Vielen Dank für Ihre Registrierung. Bitte bestätigen Sie Ihre Adresse.",
        "E-Mail-Adresse bestätigen", "Passwort zurücksetzen", "Bestellnummer: 48213344", "Telefon: 030 12345678",
        "Beispiel GmbH, Hauptstraße 21, 10827 Berlin", "Newsletter abbestellen", "Datenschutz",
        "Mit dem Rabattcode SOMMER20 sparen Sie 20 % auf Ihre nächste Bestellung.",
    ),
    "es": Words(
        "Hola, Ana:", "Tu código de verificación", "{} es tu código de acceso", "Tu código de verificación es {}.",
        "{} es tu contraseña de un solo uso.", "Introduce este código para terminar de iniciar sesión:", "Código de seguridad",
        "El código caduca en 10 minutos.", "No compartas este código con nadie.",
        "Confirma tu correo electrónico", "Gracias por registrarte. Confirma tu dirección para activar la cuenta.",
        "Confirmar correo", "Restablecer contraseña", "Número de pedido: 48213344", "Teléfono: 915 550 199",
        "Ejemplo S. A., calle Mayor 21, 28013 Madrid", "Darse de baja", "Política de privacidad",
        "Usa el código de descuento VERANO20 y ahorra un 20 %.",
    ),
    "fr": Words(
        "Bonjour Anne,", "Votre code de vérification", "{} est votre code de connexion", "Votre code de vérification est : {}",
        "{} est votre mot de passe à usage unique.", "Saisissez ce code pour terminer la connexion :", "Code de sécurité",
        "Ce code expire dans 10 minutes.", "Ne communiquez ce code à personne.",
        "Confirmez votre adresse e-mail", "Merci de votre inscription. Veuillez confirmer votre adresse.",
        "Confirmer mon adresse", "Réinitialiser le mot de passe", "Commande n° 48213344", "Téléphone : 01 55 50 19 90",
        "Exemple SARL, 21 rue de Rivoli, 75004 Paris", "Se désabonner", "Confidentialité",
        "Avec le code promo ETE20, profitez de 20 % de réduction.",
    ),
    "pt": Words(
        "Olá, Ana,", "Seu código de verificação", "{} é o seu código de acesso", "Seu código de verificação é {}.",
        "{} é a sua senha de uso único.", "Digite este código para concluir o acesso:", "Código de segurança",
        "O código expira em 10 minutos.", "Não compartilhe este código com ninguém.",
        "Confirme seu e-mail", "Obrigado por se cadastrar. Confirme seu endereço para ativar a conta.",
        "Confirmar e-mail", "Redefinir senha", "Número do pedido: 48213344", "Telefone: 11 5555 0199",
        "Exemplo Ltda., Rua Augusta 2150, 01412-100 São Paulo", "Cancelar inscrição", "Política de privacidade",
        "Use o cupom VERAO20 e ganhe 20% de desconto.",
    ),
    "ru": Words(
        "Здравствуйте, Анна!", "Код подтверждения", "{} — ваш код для входа", "Ваш код подтверждения: {}",
        "{} — ваш одноразовый пароль.", "Введите этот код, чтобы завершить вход:", "Код безопасности",
        "Код действует 10 минут.", "Никому не сообщайте этот код.",
        "Подтвердите адрес электронной почты", "Спасибо за регистрацию. Подтвердите ваш адрес, чтобы активировать аккаунт.",
        "Подтвердить адрес", "Сбросить пароль", "Номер заказа: 48213344", "Телефон: 8 800 555 01 99",
        "ООО «Пример», 125009, Москва, Тверская ул., 21", "Отписаться", "Политика конфиденциальности",
        "Промокод LETO20 даёт скидку 20 % на следующий заказ.",
    ),
    "zh": Words(
        "您好：", "您的验证码", "{} 是您的登录验证码", "您的验证码是{}，请勿泄露。",
        "{}是您的一次性密码。", "请输入以下验证码以完成登录：", "安全码",
        "验证码将在10分钟后失效。", "请勿将验证码告诉他人。",
        "请验证您的邮箱地址", "感谢您的注册，请点击下面的按钮确认邮箱地址。",
        "确认邮箱", "重置密码", "订单号：48213344", "客服电话：400-555-0199",
        "示例公司，北京市朝阳区建国路21号，邮编100022", "退订", "隐私政策",
        "使用优惠码SUMMER20，下次购物享受20%折扣。",
    ),
    "ja": Words(
        "アンナ様", "認証コードのお知らせ", "{} はログインコードです", "認証コードは {} です。",
        "{} がワンタイムパスワードです。", "ログインを完了するには、次のコードを入力してください。", "セキュリティコード",
        "このコードの有効期限は10分です。", "このコードを他人に教えないでください。",
        "メールアドレスの確認", "ご登録ありがとうございます。メールアドレスを確認してください。",
        "メールアドレスを確認する", "パスワードを再設定する", "注文番号：48213344", "電話：03-5555-0199",
        "株式会社サンプル 〒150-0002 東京都渋谷区渋谷2-21-1", "配信停止", "プライバシーポリシー",
        "クーポンコード SUMMER20 で次回20%割引。",
    ),
    "ko": Words(
        "안녕하세요, 안나님.", "인증번호 안내", "{} 로그인 코드입니다", "인증번호는 {}입니다.",
        "{}은(는) 일회용 비밀번호입니다.", "로그인을 완료하려면 아래 코드를 입력하세요.", "보안 코드",
        "이 코드는 10분 후 만료됩니다.", "이 코드를 다른 사람과 공유하지 마세요.",
        "이메일 주소를 확인해 주세요", "가입해 주셔서 감사합니다. 이메일 주소를 인증해 주세요.",
        "이메일 인증하기", "비밀번호 재설정", "주문번호: 48213344", "전화: 02-5555-0199",
        "예시 주식회사, 서울특별시 중구 세종대로 110, 우편번호 04524", "수신거부", "개인정보 처리방침",
        "쿠폰 코드 SUMMER20 을 사용하면 20% 할인됩니다.",
    ),
    "ar": Words(
        "مرحباً آنا،", "رمز التحقق الخاص بك", "{} هو رمز تسجيل الدخول", "رمز التحقق الخاص بك هو {}.",
        "{} هي كلمة مرور لمرة واحدة.", "أدخل هذا الرمز لإكمال تسجيل الدخول:", "رمز الأمان",
        "تنتهي صلاحية الرمز خلال 10 دقائق.", "لا تشارك هذا الرمز مع أي شخص.",
        "تأكيد عنوان بريدك الإلكتروني", "شكراً لتسجيلك. يرجى تأكيد عنوان بريدك لتفعيل الحساب.",
        "تأكيد البريد الإلكتروني", "إعادة تعيين كلمة المرور", "رقم الطلب: 48213344", "هاتف: 4567 5555",
        "شركة المثال، شارع الملك فهد 2150، الرياض 12211", "إلغاء الاشتراك", "سياسة الخصوصية",
        "استخدم كود الخصم SUMMER20 واحصل على خصم 20%.",
    ),
}  # fmt: skip

_TOKEN = "eyJhbGciOi-9f8e7d6c5b4a39281706"
_CODES = ("482913", "7304", "90517364", "038 441", "613-702", "G-518204", "K7XQ2M", "W3RT-9KLP")


def _page(*blocks: str) -> str:
    return "<html><body><table><tr><td>" + "</td></tr><tr><td>".join(blocks) + "</td></tr></table></body></html>"


def _paragraphs(*lines: str) -> str:
    return "".join(f"<p>{line}</p>" for line in lines)


def _footer(words: Words) -> str:
    return (
        f"<p style='color:#888'>{words.address} · {words.phone} · © 2026<br>"
        f"<a href='https://news.example/u/{_TOKEN}'>{words.unsubscribe}</a> "
        f"<a href='https://example.com/privacy'>{words.privacy}</a></p>"
    )


def _big(code: str) -> str:
    return f"<div style='font-size:32px;letter-spacing:8px'><b>{code}</b></div>"


Shape = Callable[[Words, str], tuple[str, str]]

# What senders do: (subject, HTML) of the words and the code.
_WITH_CODE: dict[str, Shape] = {
    "sentence": lambda w, c: (w.subject, _paragraphs(w.greeting, w.code_is.format(c), w.expires, w.warning)),
    "sentence-footer": lambda w, c: (w.subject, _paragraphs(w.code_is.format(c), w.expires) + _footer(w)),
    "code-first": lambda w, c: (w.subject, _paragraphs(w.greeting, w.is_code.format(c), w.expires) + _footer(w)),
    "own-line": lambda w, c: (w.subject, _page(w.greeting, w.enter, _big(c), w.expires, _footer(w))),
    "own-line-neutral-subject": lambda w, c: ("Example", _page(w.greeting, w.enter, _big(c), w.expires, _footer(w))),
    "label": lambda w, c: (w.subject, _page(w.greeting, f"{w.label}: <b>{c}</b>", w.warning, _footer(w))),
    "label-above": lambda w, c: ("Example", _page(f"<h2>{w.label}</h2>", _big(c), w.expires, w.warning, _footer(w))),
    "in-subject": lambda w, c: (w.subject_with.format(c), _page(w.greeting, w.enter, _big(c), _footer(w))),
    "only-in-subject": lambda w, c: (w.subject_with.format(c), _paragraphs(w.greeting, w.warning) + _footer(w)),
    "order-beside": lambda w, c: (w.subject, _page(w.greeting, w.order, w.code_is.format(c), w.expires, _footer(w))),
    "order-above-own-line": lambda w, c: (w.subject, _page(w.order, w.enter, _big(c), w.phone, _footer(w))),
    "link-as-well": lambda w, c: (
        w.subject,
        _page(w.enter, _big(c), f"<a href='https://example.com/login/{_TOKEN}'>{w.button}</a>", _footer(w)),
    ),
    "promotion-below": lambda w, c: (w.subject, _page(w.code_is.format(c), w.expires, "<hr>", w.promo, _footer(w))),
}
_WITH_LINK: dict[str, Callable[[Words, str], tuple[str, str]]] = {
    "button": lambda w, u: (
        w.confirm_subject,
        _page(w.greeting, w.confirm, f"<a href='{u}'>{w.button}</a>", _footer(w)),
    ),
    "button-and-plain": lambda w, u: (
        w.confirm_subject,
        _page(w.confirm, f"<a href='{u}'>{w.button}</a>", f"<a href='{u}'>{u}</a>", _footer(w)),
    ),
    "plain": lambda w, u: (
        w.confirm_subject,
        _paragraphs(w.greeting, w.confirm, f"<a href='{u}'>{u}</a>") + _footer(w),
    ),
    "reset": lambda w, u: (w.reset, _page(w.greeting, f"<a href='{u}'>{w.reset}</a>", w.warning, _footer(w))),
    "neutral-subject": lambda w, u: ("Example", _page(w.confirm, f"<a href='{u}'>{w.button}</a>", _footer(w))),
    "footer-first": lambda w, u: (w.confirm_subject, _page(_footer(w), w.confirm, f"<a href='{u}'>{w.button}</a>")),
    "order-beside": lambda w, u: (
        w.confirm_subject,
        _page(w.order, w.confirm, f"<a href='{u}'>{w.button}</a>", _footer(w)),
    ),
}
_WITHOUT: dict[str, Callable[[Words], tuple[str, str]]] = {
    "order": lambda w: (w.order, _page(w.greeting, w.order, "2 × 1499", "12.05.2026 10:30", _footer(w))),
    "promotion": lambda w: ("Example", _page(w.greeting, w.promo, "SUMMER20", _footer(w))),
    "newsletter": lambda w: (
        "News 2026",
        _page(w.greeting, f"<a href='https://news.example/c/{_TOKEN}'>2026</a>", _footer(w)),
    ),
    "telephone": lambda w: ("Example", _paragraphs(w.greeting, w.phone, w.address, "10000", "2026")),
    "privacy": lambda w: (
        w.privacy,
        _page(w.greeting, f"<a href='https://news.example/c/{_TOKEN}'>{w.privacy}</a>", _footer(w)),
    ),
}


def mails() -> Iterator[Mail]:
    """Return the 200 mails that hold a code or a link that confirms."""
    for number, (language, words) in enumerate(LANGUAGES.items()):
        for place, (name, shape) in enumerate(_WITH_CODE.items()):
            code = _CODES[(number + place) % len(_CODES)]
            plain = code.replace(" ", "").replace("-", "") if code.replace(" ", "").replace("-", "").isdigit() else code
            yield Mail(f"{language}-code-{name}", *shape(words, code), plain)
        for name, with_link in _WITH_LINK.items():
            url = f"https://example.com/{'reset' if name == 'reset' else 'confirm'}?token={_TOKEN}{number}"
            yield Mail(f"{language}-link-{name}", *with_link(words, url), url)


def mails_without() -> Iterator[Mail]:
    """Return mails with numbers and links, none of which a reader wants to copy."""
    for language, words in LANGUAGES.items():
        for name, shape in _WITHOUT.items():
            yield Mail(f"{language}-none-{name}", *shape(words), None)
