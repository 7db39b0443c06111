"""Capitals that the bundled models know by heart: well-known countries (head) and rarer ones (tail)."""

from typing import Final

_HEAD: Final = """
France=Paris; Germany=Berlin; Italy=Rome; Spain=Madrid; Portugal=Lisbon; the United Kingdom=London; Ireland=Dublin;
Austria=Vienna; Belgium=Brussels; the Netherlands=Amsterdam; Denmark=Copenhagen; Sweden=Stockholm; Norway=Oslo;
Finland=Helsinki; Poland=Warsaw; Greece=Athens; Russia=Moscow; Turkey=Ankara; Egypt=Cairo; Kenya=Nairobi;
India=New Delhi; China=Beijing; Japan=Tokyo; South Korea=Seoul; Thailand=Bangkok; Australia=Canberra; Canada=Ottawa;
the United States=Washington; Mexico=Mexico City; Brazil=Brasilia; Argentina=Buenos Aires; Cuba=Havana
"""

_TAIL: Final = """
Albania=Tirana; Andorra=Andorra la Vella; Belarus=Minsk; Bosnia and Herzegovina=Sarajevo; Bulgaria=Sofia;
Croatia=Zagreb; Cyprus=Nicosia; Czechia=Prague; Estonia=Tallinn; Hungary=Budapest; Iceland=Reykjavik; Latvia=Riga;
Liechtenstein=Vaduz; Lithuania=Vilnius; Malta=Valletta; Moldova=Chisinau; Montenegro=Podgorica;
North Macedonia=Skopje; Romania=Bucharest; Serbia=Belgrade; Slovakia=Bratislava; Slovenia=Ljubljana; Ukraine=Kyiv;
Armenia=Yerevan; Azerbaijan=Baku; Georgia=Tbilisi; Afghanistan=Kabul; Bahrain=Manama; Bangladesh=Dhaka;
Bhutan=Thimphu; Brunei=Bandar Seri Begawan; Cambodia=Phnom Penh; Indonesia=Jakarta; Iran=Tehran; Iraq=Baghdad;
Jordan=Amman; Kazakhstan=Astana; Kuwait=Kuwait City; Kyrgyzstan=Bishkek; Laos=Vientiane; Lebanon=Beirut;
Malaysia=Kuala Lumpur; the Maldives=Male; Mongolia=Ulaanbaatar; Myanmar=Naypyidaw; Nepal=Kathmandu;
North Korea=Pyongyang; Oman=Muscat; Pakistan=Islamabad; the Philippines=Manila; Qatar=Doha; Saudi Arabia=Riyadh;
Syria=Damascus; Taiwan=Taipei; Tajikistan=Dushanbe; Timor-Leste=Dili; Turkmenistan=Ashgabat;
the United Arab Emirates=Abu Dhabi; Uzbekistan=Tashkent; Vietnam=Hanoi; Yemen=Sanaa; Algeria=Algiers; Angola=Luanda;
Botswana=Gaborone; Burkina Faso=Ouagadougou; Burundi=Gitega; Cameroon=Yaounde; Cape Verde=Praia;
the Central African Republic=Bangui; Chad=N'Djamena; the Comoros=Moroni; Djibouti=Djibouti;
Equatorial Guinea=Malabo; Eritrea=Asmara; Ethiopia=Addis Ababa; Gabon=Libreville; the Gambia=Banjul; Ghana=Accra;
Guinea=Conakry; Guinea-Bissau=Bissau; Lesotho=Maseru; Liberia=Monrovia; Libya=Tripoli; Madagascar=Antananarivo;
Malawi=Lilongwe; Mali=Bamako; Mauritania=Nouakchott; Mauritius=Port Louis; Morocco=Rabat; Mozambique=Maputo;
Namibia=Windhoek; Niger=Niamey; Nigeria=Abuja; Rwanda=Kigali; Senegal=Dakar; the Seychelles=Victoria;
Sierra Leone=Freetown; Somalia=Mogadishu; South Sudan=Juba; Sudan=Khartoum; Tanzania=Dodoma; Togo=Lome;
Tunisia=Tunis; Uganda=Kampala; Zambia=Lusaka; Zimbabwe=Harare; Antigua and Barbuda=Saint John's; the Bahamas=Nassau;
Barbados=Bridgetown; Belize=Belmopan; Chile=Santiago; Colombia=Bogota; Costa Rica=San Jose; Dominica=Roseau;
the Dominican Republic=Santo Domingo; Ecuador=Quito; El Salvador=San Salvador; Grenada=Saint George's;
Guatemala=Guatemala City; Guyana=Georgetown; Haiti=Port-au-Prince; Honduras=Tegucigalpa; Jamaica=Kingston;
Nicaragua=Managua; Panama=Panama City; Paraguay=Asuncion; Peru=Lima; Saint Kitts and Nevis=Basseterre;
Saint Lucia=Castries; Suriname=Paramaribo; Trinidad and Tobago=Port of Spain; Uruguay=Montevideo; Venezuela=Caracas;
Fiji=Suva; Kiribati=South Tarawa; the Marshall Islands=Majuro; Micronesia=Palikir; New Zealand=Wellington;
Palau=Ngerulmud; Papua New Guinea=Port Moresby; Samoa=Apia; the Solomon Islands=Honiara; Tonga=Nuku'alofa;
Tuvalu=Funafuti; Vanuatu=Port Vila; Greenland=Nuuk; Bermuda=Hamilton; Aruba=Oranjestad; Gibraltar=Gibraltar;
French Polynesia=Papeete; New Caledonia=Noumea
"""


def _parse(table: str) -> tuple[tuple[str, str], ...]:
    pairs = (entry.strip().split("=") for entry in table.split(";"))
    return tuple((country, capital) for country, capital in pairs)


HEAD: Final = _parse(_HEAD)
TAIL: Final = _parse(_TAIL)
